"""Rows on their way from a data set to a training corpus: Example → Candidate → Verdict → Decision."""

from __future__ import annotations

from typing import Any, Literal

from optaware.records._base import Record
from optaware.records.chat import Usage

__all__ = [
    "AutomaticCheck",
    "Candidate",
    "DataSource",
    "DatasetCard",
    "Decision",
    "Example",
    "JudgeReason",
    "LengthSummary",
    "ParseFailure",
    "Protocol",
    "RenderedExample",
    "RowMeasure",
    "Verdict",
]


class Protocol(Record):
    """Which rows of a data set are used for training, development and test.

    `oat` and `mezo` are the published protocols (sizes come from the task); `free` takes the sizes given here; `all`
    takes every training row (or the first `train` of them), for making a corpus of a whole data set.
    """

    name: Literal["oat", "mezo", "free", "all"] = "oat"
    train: int | None = None
    dev: int | None = None
    test: int | None = None
    seed: int = 0


class DataSource(Record):
    """Where a task's rows came from, so that a result can be traced to bytes."""

    kind: Literal["local", "data-dir", "hub", "package"]
    location: str
    sha256: dict[str, str]
    """SHA-256 by file or split name."""


class Example(Record):
    """One labelled row of a task.

    `id` is `task/split/row`; `fields` holds the task's own columns as plain JSON; `label` indexes the answer options.
    """

    id: str
    task: str
    split: str
    row: int
    fields: dict[str, Any]
    label: int


class RenderedExample(Record):
    """An example as the model sees it: `prompt + options[i]` is the text of answer option i."""

    id: str
    prompt: str
    options: tuple[str, ...]
    label: int


class ParseFailure(Record):
    """A reply that does not have the form that was asked for: counted, never guessed at."""

    raw: str
    why: str


class Candidate(Record):
    """One attempt at rewriting the span of one example."""

    example_id: str
    attempt: int = 0
    prompt_id: str
    """Content hash of the template that produced the prompt."""
    request_id: str
    """Content hash of the request: model, messages and sampling."""
    raw_reply: str | None
    """The reply as it came; None when the call failed."""
    text: str | None
    """The rewritten span taken from the reply; None when there is none to take."""
    failure: ParseFailure | None = None
    """Why there is none to take, when there was a reply."""
    error: str | None = None
    """Why there was no reply: `code: words`."""
    cached: bool = False
    usage: Usage = Usage()


class AutomaticCheck(Record):
    """One check that needs no judge, with what it saw."""

    name: Literal[
        "empty",
        "identical",
        "label-leaked",
        "answer-leaked",
        "numbers",
        "names",
        "negation",
        "length-ratio",
        "prompt-repeated",
        "language",
        "orders",
        "near-duplicate",
    ]
    passed: bool
    blocking: bool
    detail: str = ""


class Verdict(Record):
    """What the judge said of one candidate, one answer per question."""

    example_id: str
    attempt: int = 0
    question: Literal["meaning", "role"]
    prompt_id: str
    request_id: str
    answer: Literal["same", "not the same"] | None
    failure: ParseFailure | None = None
    error: str | None = None
    raw_reply: str | None = None
    cached: bool = False
    usage: Usage = Usage()


class JudgeReason(Record):
    """Why a rewrite was rejected, in the judge's words: what the rewriter is told before its next try."""

    example_id: str
    attempt: int = 0
    question: Literal["meaning", "role"]
    prompt_id: str
    request_id: str
    text: str | None
    error: str | None = None
    cached: bool = False
    usage: Usage = Usage()


class RowMeasure(Record):
    """What a model says of one text of a row: the original (`attempt` None), or a rewrite that passed the gate.

    `score` is what a search prefers to be low; `figures` holds whatever was measured, by canonical name.
    """

    example_id: str
    attempt: int | None
    measure_id: str
    """What the figures depend on: model, directions, eps, seed."""
    score: float | None
    """None: not finite."""
    figures: dict[str, float | None]


class LengthSummary(Record):
    """Words of the spans of a corpus."""

    mean: float
    median: float
    p10: float
    p90: float


class Decision(Record):
    """What the rejection gate did with one row: the rewritten span is used, or the original one is put back."""

    example_id: str
    outcome: Literal["accepted", "rejected", "failed"]
    """`failed`: no usable candidate or verdict was had; like `rejected`, the original row stays."""
    reason: str
    original: str
    rewritten: str | None
    """The rewrite that was decided on: of several tries the one that is used, else the last one."""
    checks: tuple[AutomaticCheck, ...] = ()
    attempts: int = 1
    """Tries that were made."""
    attempt: int = 0
    """Which of them `rewritten` is, counted from 0."""


class DatasetCard(Record):
    """The counts behind one corpus. `accepted + rejected + failed == rows` always."""

    version: int = 1
    corpus_id: str
    task: str
    variant: str
    rows: int
    accepted: int
    rejected: int
    failed: int
    identical: int
    reasons: dict[str, int]
    rewriter: str
    judge: str
    rewriter_prompt_id: str
    judge_prompt_ids: dict[str, str]
    words_before: float
    """Mean number of words of the span before rewriting."""
    words_after: float
    """Mean number of words of the span as it stands in the corpus."""
    calls: int
    cached_calls: int
    """Calls that the reply cache answered; tokens, cost and time below are of the others."""
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    wall_s: float
    source: DataSource
    licence: str
    accept_at: float | None = None
    """Rewriter accuracy from which the corpus counts as accepted; None on cards of earlier versions."""
    accuracy_low: float | None = None
    accuracy_high: float | None = None
    """95 % Wilson interval of the rewriter accuracy."""
    lengths_before: LengthSummary | None = None
    lengths_after: LengthSummary | None = None
    attempts: dict[str, int] | None = None
    """How many rows took so many tries."""
    retries: int = 0
    search: str | None = None
    """What chose among several rewrites, in words; None when each row had one."""
    measured_forwards: int = 0
    """Forward passes of one text each that the search spent."""
    unpriced_calls: int = 0
    """Calls that were paid for at an unknown price: `cost_usd` does not hold them."""
    citation: str = ""

    @property
    def is_accepted(self) -> bool:
        """Whether the rewriter accuracy reaches what was asked for (OAT-Rephrase: 90 %)."""
        return self.rows > 0 and self.rewriter_accuracy >= (0.9 if self.accept_at is None else self.accept_at)

    @property
    def rewriter_accuracy(self) -> float:
        """Share of rows whose rewrite was accepted (Table 1 of OAT-Rephrase)."""
        return self.accepted / self.rows if self.rows else 0.0
