"""Finishing a corpus: its rows, its decisions and the card that counts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from optaware._io import file_sha256, write_json, write_jsonl
from optaware.data._gate import fitted
from optaware.data._ledger import Ledger
from optaware.data._prompts import QUESTIONS, Question
from optaware.data._words import count_words
from optaware.records import (
    Candidate,
    ChatModelRef,
    CorpusSpec,
    DatasetCard,
    DataSource,
    Decision,
    Example,
    Verdict,
    short_id,
)
from optaware.tasks import Task

__all__ = ["finish"]


def finish(
    spec: CorpusSpec,
    task: Task,
    examples: Sequence[Example],
    *,
    decisions: Sequence[Decision],
    candidates: Ledger[str, Candidate],
    verdicts: Ledger[tuple[str, Question], Verdict],
    folder: Path,
    source: DataSource,
    wall_s: float,
) -> DatasetCard:
    """Write the files of a finished corpus, each whole, and DONE last."""
    candidates.rewrite(example.id for example in examples)
    verdicts.rewrite((example.id, question) for example in examples for question in QUESTIONS)
    rows = [_row(task, example, decision) for example, decision in zip(examples, decisions, strict=True)]
    write_jsonl(folder / "decisions.jsonl", (decision.to_json() for decision in decisions))
    write_jsonl(folder / "train.jsonl", (row.fields for row in rows))
    card = _card(spec, task, examples, rows, decisions, [*candidates.values(), *verdicts.values()], source, wall_s)
    write_json(folder / "card.json", card.to_json())
    files = ("candidates.jsonl", "verdicts.jsonl", "decisions.jsonl", "train.jsonl", "card.json")
    write_json(folder / "DONE", {"sha256": {name: file_sha256(folder / name) for name in files}})
    return card


def _row(task: Task, example: Example, decision: Decision) -> Example:
    if decision.outcome != "accepted" or decision.reason == "identical":
        return example
    assert decision.rewritten is not None
    return task.with_span(example, fitted(decision.original, decision.rewritten))


def _card(
    spec: CorpusSpec,
    task: Task,
    examples: Sequence[Example],
    rows: Sequence[Example],
    decisions: Sequence[Decision],
    calls: Sequence[Candidate | Verdict],
    source: DataSource,
    wall_s: float,
) -> DatasetCard:
    outcomes = Counter(decision.outcome for decision in decisions)
    reasons = Counter(decision.reason for decision in decisions)
    paid = [call.usage for call in calls if not call.cached]
    costs = [usage.cost_usd for usage in paid if usage.cost_usd is not None]
    return DatasetCard(
        corpus_id=short_id(spec),
        task=spec.task,
        variant=spec.variant,
        rows=len(examples),
        accepted=outcomes["accepted"],
        rejected=outcomes["rejected"],
        failed=outcomes["failed"],
        identical=reasons["identical"],
        reasons=dict(sorted(reasons.items())),
        rewriter=_model(spec.rewriter),
        judge=_model(spec.judge),
        rewriter_prompt_id=spec.rewriter_prompt_id,
        judge_prompt_ids=spec.judge_prompt_ids,
        words_before=_mean_words(task, examples),
        words_after=_mean_words(task, rows),
        calls=len(calls),
        cached_calls=sum(call.cached for call in calls),
        prompt_tokens=sum(usage.prompt_tokens for usage in paid),
        completion_tokens=sum(usage.completion_tokens for usage in paid),
        cost_usd=sum(costs) if costs else None,
        wall_s=round(wall_s, 3),
        source=source,
        licence=task.licence,
    )


def _model(ref: ChatModelRef) -> str:
    return f"{ref.provider}:{ref.model}"


def _mean_words(task: Task, rows: Sequence[Example]) -> float:
    return sum(count_words(task.span_text(row)) for row in rows) / max(len(rows), 1)
