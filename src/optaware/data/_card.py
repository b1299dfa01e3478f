"""Finishing a corpus: its rows, its decisions and the card that counts them, all streamed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optaware._io import file_sha256, write_json, write_jsonl, write_text
from optaware.data._board import Board
from optaware.data._card_page import card_page, last_part
from optaware.data._gate import fitted
from optaware.data._words import count_words
from optaware.records import (
    ChatModelRef,
    DatasetCard,
    DataSource,
    Decision,
    Example,
    LengthSummary,
    Usage,
    short_id,
)
from optaware.stats import wilson
from optaware.tasks import Task

__all__ = ["finish", "samples"]


class _Tally:
    """What is counted while the decisions go by."""

    def __init__(self, rows: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self.reasons: Counter[str] = Counter()
        self.attempts: Counter[int] = Counter()
        self.before = np.zeros(rows, dtype=np.int32)
        self.after = np.zeros(rows, dtype=np.int32)

    def watch(self, task: Task, examples: Sequence[Example], decisions: Iterator[Decision]) -> Iterator[Decision]:
        """Hand the decisions on, counted."""
        for number, (example, decision) in enumerate(zip(examples, decisions, strict=True)):
            self.outcomes[decision.outcome] += 1
            self.reasons[decision.reason] += 1
            self.attempts[decision.attempts] += 1
            self.before[number] = count_words(decision.original)
            self.after[number] = count_words(task.span_text(_row(task, example, decision)))
            yield decision


def finish(
    work: Board,
    decisions: Iterator[Decision],
    folder: Path,
    source: DataSource,
    wall_s: float,
    forwards_per_row: int,
    before_done: Callable[[], None],
) -> DatasetCard:
    """Write the files of a finished corpus, each whole, let the caller add its own, and write DONE last."""
    spec, task, examples = work.spec, work.task, work.examples
    tally = _Tally(len(examples))
    decided = tally.watch(task, examples, decisions)
    write_jsonl(folder / "decisions.jsonl", (decision.to_json() for decision in decided))
    rows = zip(examples, _read(folder / "decisions.jsonl"), strict=True)
    write_jsonl(folder / "train.jsonl", (_row(task, example, decision).fields for example, decision in rows))
    card = _card(work, tally, source, wall_s, forwards_per_row)
    ledgers: tuple[Any, ...] = (work.candidates, work.verdicts, work.reasons, work.measures)
    there = [ledger for ledger in ledgers if ledger is not None]
    for ledger in there:
        ledger.rewrite()
    write_json(folder / "card.json", card.to_json())
    write_text(folder / "README.md", card_page(card, spec, task, samples(folder)))
    names = [ledger.path.name for ledger in there]
    files = (*names, "decisions.jsonl", "train.jsonl", "card.json", "README.md")
    before_done()
    write_json(folder / "DONE", {"sha256": {name: file_sha256(folder / name) for name in files}})
    return card


def _read(path: Path) -> Iterator[Decision]:
    with path.open("rb") as file:
        for line in file:
            yield Decision.model_validate(json.loads(line))


def samples(folder: Path, most: int = 3) -> list[Decision]:
    """The first rewrites of a corpus that are used, for its page."""
    found: list[Decision] = []
    for decision in _read(folder / "decisions.jsonl"):
        if decision.outcome == "accepted" and decision.reason != "identical":
            found.append(decision)
        if len(found) == most:
            break
    return found


def _row(task: Task, example: Example, decision: Decision) -> Example:
    if decision.outcome != "accepted" or decision.reason == "identical":
        return example
    assert decision.rewritten is not None
    return task.with_span(example, fitted(decision.original, decision.rewritten))


class _Bill:
    """What the calls of a corpus cost."""

    def __init__(self) -> None:
        self.calls = self.cached = self.prompt = self.completion = self.unpriced = 0
        self.cost: float | None = None

    def add(self, usage: Usage, cached: bool) -> None:
        """Count one call."""
        self.calls += 1
        self.cached += cached
        if cached:
            return
        self.prompt += usage.prompt_tokens
        self.completion += usage.completion_tokens
        if usage.cost_usd is not None:
            self.cost = (self.cost or 0.0) + usage.cost_usd
        elif usage.prompt_tokens or usage.completion_tokens:
            self.unpriced += 1


def _card(work: Board, tally: _Tally, source: DataSource, wall_s: float, forwards_per_row: int) -> DatasetCard:
    spec, bill = work.spec, _Bill()
    for candidate in work.candidates.paid():
        bill.add(candidate.usage, candidate.cached)
    for verdict in work.verdicts.paid():
        bill.add(verdict.usage, verdict.cached)
    for reason in work.reasons.paid() if work.reasons is not None else ():
        bill.add(reason.usage, reason.cached)
    measured = sum(1 for _ in work.measures.paid()) if work.measures is not None else 0
    rows, accepted = len(work.examples), tally.outcomes["accepted"]
    interval = wilson(accepted, rows)
    return DatasetCard(
        corpus_id=short_id(spec),
        task=spec.task,
        variant=spec.variant,
        rows=rows,
        accepted=accepted,
        rejected=tally.outcomes["rejected"],
        failed=tally.outcomes["failed"],
        identical=tally.reasons["identical"],
        reasons=dict(sorted(tally.reasons.items())),
        rewriter=_model(spec.rewriter),
        judge=_model(spec.judge),
        rewriter_prompt_id=spec.rewriter_prompt_id,
        judge_prompt_ids=spec.judge_prompt_ids,
        words_before=float(tally.before.mean()),
        words_after=float(tally.after.mean()),
        calls=bill.calls,
        cached_calls=bill.cached,
        prompt_tokens=bill.prompt,
        completion_tokens=bill.completion,
        cost_usd=bill.cost,
        wall_s=round(wall_s, 3),
        source=source,
        licence=work.task.licence,
        accept_at=spec.gate.accept_at,
        accuracy_low=interval.low,
        accuracy_high=interval.high,
        lengths_before=_lengths(tally.before),
        lengths_after=_lengths(tally.after),
        attempts={str(tries): count for tries, count in sorted(tally.attempts.items())},
        retries=spec.retries,
        search=spec.search.words if spec.search else None,
        measured_forwards=measured * forwards_per_row,
        unpriced_calls=bill.unpriced,
        citation=work.task.citation,
    )


def _lengths(words: NDArray[np.int32]) -> LengthSummary:
    p10, median, p90 = np.quantile(words, [0.1, 0.5, 0.9])
    return LengthSummary(mean=float(words.mean()), median=float(median), p10=float(p10), p90=float(p90))


def _model(ref: ChatModelRef) -> str:
    return f"{ref.provider}:{last_part(ref.model) if Path(ref.model).is_absolute() else ref.model}"
