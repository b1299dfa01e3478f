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
    "ParseFailure",
    "Protocol",
    "RenderedExample",
    "Verdict",
]


class Protocol(Record):
    """Which rows of a data set are used for training, development and test.

    `oat` and `mezo` are the published protocols (sizes come from the task); `free` takes the sizes given here.
    """

    name: Literal["oat", "mezo", "free"] = "oat"
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


class Decision(Record):
    """What the rejection gate did with one row: the rewritten span is used, or the original one is put back."""

    example_id: str
    outcome: Literal["accepted", "rejected", "failed"]
    """`failed`: no usable candidate or verdict was had; like `rejected`, the original row stays."""
    reason: str
    original: str
    rewritten: str | None
    checks: tuple[AutomaticCheck, ...] = ()
    attempts: int = 1


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

    @property
    def rewriter_accuracy(self) -> float:
        """Share of rows whose rewrite was accepted (Table 1 of OAT-Rephrase)."""
        return self.accepted / self.rows if self.rows else 0.0
