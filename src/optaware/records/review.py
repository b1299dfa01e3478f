"""What a person looks at and what they say of it: pairs of original and rewrite, and labels."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from optaware.records._base import Record

__all__ = ["Fault", "PairLabel", "ReviewPair", "SameOrNot"]

SameOrNot = Literal["same", "not the same"]
"""The two verdicts, of a person and of a judge alike."""

Fault = Literal["meaning", "role"]
"""What differs in a pair that is not the same: what the span says, or the part that it plays in the row."""


class ReviewPair(Record):
    """An original span and a rewrite of it, to be compared by a person or a judge.

    `given` holds the lines that stand beside the span in its row (question, options, right answer) by their heading.
    What machines said of the pair (`outcome`, `reason`) is shown only on request, so that it does not sway the person.
    """

    id: str
    """Content hash of task, row, original and rewrite."""
    task: str | None = None
    example_id: str | None = None
    original: str
    rewritten: str
    given: dict[str, str | list[str]] = Field(default_factory=dict)
    origin: str = ""
    """Who or what wrote the rewrite, in words."""
    outcome: str = ""
    """What the gate did with it (`accepted`, `rejected`, `failed`); empty when no gate saw it."""
    reason: str = ""


class PairLabel(Record):
    """What one person said of one pair; one line of a labels file, appended as it is made.

    Of several lines by the same labeller on the same pair the last one stands. `withdrawn` takes a label back.
    `original` may be left out where a licence forbids to copy it: `example_id` and `original_sha256` say which text
    it is.
    """

    pair_id: str
    task: str | None = None
    example_id: str | None = None
    original: str | None = None
    original_sha256: str
    rewritten: str
    answer: Literal["same", "not the same", "skipped", "withdrawn"]
    faults: tuple[Fault, ...] = ()
    """What differs, when the answer is `not the same` and the labeller said so."""
    note: str = ""
    labeller: Annotated[str, Field(min_length=1)]
    at: str
    """When, in UTC (ISO 8601)."""
    seconds: float | None = None
    """How long the pair was looked at, in seconds."""
    undo: bool = False
    """Whether the line takes back the labeller's latest act."""
    origin: str = ""

    @model_validator(mode="after")
    def _faults_belong_to_not_the_same(self) -> PairLabel:
        if self.faults and self.answer != "not the same":
            raise ValueError("only a pair that is not the same has faults")
        if len(set(self.faults)) < len(self.faults):
            raise ValueError("a fault is given twice")
        return self

    @property
    def verdict(self) -> SameOrNot | None:
        """The answer, or None when the pair was skipped or the label withdrawn."""
        return self.answer if self.answer == "same" or self.answer == "not the same" else None
