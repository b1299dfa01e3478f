"""Trying a template on a few rows: each trial is a small corpus, so it can be shown and reviewed like one."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optaware._io import read_jsonl
from optaware.data._build import build_corpus
from optaware.data._corpus import make_corpus_spec
from optaware.data.design._asker import Counter
from optaware.errors import StoppedBySignal
from optaware.llm import ChatModel
from optaware.records import (
    DataSource,
    Decision,
    DesignSpec,
    Example,
    PairLabel,
    Protocol,
    TemplateTrial,
    Usage,
    parse_record,
    short_id,
)
from optaware.tasks import Task

__all__ = ["Row", "Trials", "fault_words"]

_CALLS_A_ROW = 3


@dataclass(frozen=True)
class Row:
    """One row of a trial: what it was, what became of it, and why it is not valid (None: it is)."""

    example: Example
    original: str
    rewritten: str | None
    reason: str | None
    detail: str = ""


class Trials:
    """Runs trials of templates on rows.

    Args:
        spec: The build.
        task: The task.
        rewriter: Rewrites.
        judge: Judges.
        folder: Folder of the build.
        source: Where the rows came from.
        counter: Counts and bounds the requests.
        on_step: Told what goes on.
    """

    def __init__(
        self,
        spec: DesignSpec,
        task: Task,
        rewriter: ChatModel,
        judge: ChatModel,
        folder: Path,
        source: DataSource,
        counter: Counter,
        on_step: Callable[[str], None] | None,
    ) -> None:
        self._spec, self._task = spec, task
        self._rewriter, self._judge = rewriter, judge
        self._folder, self._source, self._counter = folder, source, counter
        self._on_step = on_step

    def run(
        self, template: Path, template_id: str, rows: Sequence[Example], below: Path, name: str
    ) -> tuple[TemplateTrial, list[Row]]:
        """Rewrite, check and judge rows with a template; a person's labels in the trial's folder overrule the judge.

        Args:
            template: The template's file; its few-shot module lies beside it.
            template_id: Its content hash.
            rows: The rows.
            below: Folder in which the trial's own folder is made.
            name: What the trial is called in messages.

        Raises:
            StoppedBySignal: A person is to label first.
            BudgetExhausted, EndpointError: As in `build_corpus`.
        """
        spec = make_corpus_spec(
            task=self._task,
            task_name=self._spec.task,
            protocol=Protocol(name="free"),
            variant="trial",
            template=str(template),
            examples=rows,
            rewriter=self._spec.rewriter,
            judge=self._spec.judge,
            gate=self._spec.gate,
            judge_file=None if self._spec.judge_file is None else Path(self._spec.judge_file),
        )
        folder = below / f"trial-{short_id(spec)}"
        if not (folder / "DONE").is_file():
            self._counter.claim(_CALLS_A_ROW * len(rows))

        def moved(done: int, total: int, what: str) -> None:
            if self._on_step is not None:
                self._on_step(f"{name}: {what} {done}/{total}")

        card = build_corpus(
            spec,
            self._task,
            rows,
            rewriter=self._rewriter,
            judge=self._judge,
            folder=folder,
            source=self._source,
            on_progress=moved,
        )
        used = Usage(prompt_tokens=card.prompt_tokens, completion_tokens=card.completion_tokens, cost_usd=card.cost_usd)
        self._counter.add(card.calls, card.cached_calls, used)
        labels = self._labels(folder)
        found, overruled = self._rows(folder, rows, labels)
        reasons = Tally(row.reason for row in found if row.reason is not None)
        trial = TemplateTrial(
            template_id=template_id,
            folder=str(folder.relative_to(self._folder)),
            rows=len(found),
            valid=sum(row.reason is None for row in found),
            reasons=dict(reasons.most_common()),
            calls=card.calls,
            overruled=overruled,
        )
        return trial, found

    def _labels(self, folder: Path) -> Mapping[str, PairLabel]:
        """What people say of the trial's pairs, by row; with `inspect: person`, all of them must be labelled."""
        from optaware.data.review import agreed_labels, corpus_pairs, read_labels

        path = folder / "review.labels.jsonl"
        labels = agreed_labels(read_labels(path))[0] if path.is_file() else []
        by_row = {label.example_id: label for label in labels if label.example_id is not None}
        if self._spec.inspect == "person":
            pairs = [pair for pair in corpus_pairs(folder)[1] if not pair.reason.startswith("check:")]
            left = [pair for pair in pairs if pair.example_id not in by_row]
            if left:
                raise StoppedBySignal.of(
                    "design-inspect",
                    f"{len(left)} of {len(pairs)} rewrites in {folder}",
                    "a person is to say whether they are the same",
                    f"Label them with `optaware data review {folder}`, then run the same command again.",
                )
        return by_row

    def _rows(self, folder: Path, rows: Sequence[Example], labels: Mapping[str, PairLabel]) -> tuple[list[Row], int]:
        found, overruled = [], 0
        path = folder / "decisions.jsonl"
        by_id = {example.id: example for example in rows}
        for number, line in enumerate(read_jsonl(path), start=1):
            decision = parse_record(Decision, line, f"{path}: row {number}")
            reason, detail = _reason(decision)
            label = labels.get(decision.example_id)
            if label is not None and (reason is None or reason.startswith("judge:")):
                person = None if label.verdict == "same" else f"person:{'+'.join(label.faults) or 'not the same'}"
                overruled += (person is None) != (reason is None)
                reason, detail = person, label.note
            example = by_id[decision.example_id]
            found.append(Row(example, decision.original, decision.rewritten, reason, detail))
        return found, overruled


def _reason(decision: Decision) -> tuple[str | None, str]:
    """Why a row is not valid. A rewrite that changes nothing passes the gate, but shows nothing either."""
    if decision.outcome == "accepted":
        return ("identical", "") if decision.reason == "identical" else (None, "")
    name = decision.reason.removeprefix("check:")
    return decision.reason, next((c.detail for c in decision.checks if c.name == name and not c.passed), "")


def fault_words(row: Row, role: str, noun: str) -> tuple[str, dict[str, str]]:
    """What is wrong with a row, in words for the writer of the template, and lines of the row that show it."""
    reason = row.reason or ""
    given: dict[str, str] = {}
    words: dict[str, str] = {
        "identical": f"the {noun} was not reworded at all: it is the original, word for word",
        "check:length-ratio": f"the length is too different ({row.detail})",
        "check:numbers": f"a number was changed, lost or added ({row.detail})",
        "check:negation": row.detail,
        "check:label-leaked": f"it gives the answer away ({row.detail})",
        "check:answer-leaked": f"it says what is to be inferred ({row.detail})",
        "check:prompt-repeated": "it repeats the instructions in place of rewording",
        "check:names": f"a name was lost or added ({row.detail})",
        "judge:meaning": "the meaning is not the same: something was added, lost or changed",
        "judge:role": f"it does not play the same role in the example any more. {role}",
    }
    if reason in words:
        return words[reason], given
    kind, _, rest = reason.partition(":")
    if kind == "reply":
        return f"the reply was not one reworded {noun} and nothing else ({rest})", given
    if kind == "person":
        return f"a reader says that it is not the same{f': {row.detail}' if row.detail else ''}", given
    return f"it was rejected ({reason})", given
