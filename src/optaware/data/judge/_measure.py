"""A judge's verdicts beside people's labels: tables, intervals, and what they do and do not show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from optaware.data._prompts import QUESTIONS, Question
from optaware.records import Example, Interval, JudgeMeasure, PairLabel, ReviewPair, SameOrNot
from optaware.stats import clopper_pearson, wilson

__all__ = ["LabelledPair", "Verdicts", "measure", "overall", "pairs_needed", "settled"]

_MOST_PAIRS = 20_000


@dataclass(frozen=True)
class LabelledPair:
    """A pair, its row, and what people said of it.

    Attributes:
        pair: The pair.
        example: The original row.
        label: The label; its `verdict` is not None.
    """

    pair: ReviewPair
    example: Example
    label: PairLabel

    @property
    def answer(self) -> SameOrNot:
        """What people said."""
        assert self.label.verdict is not None
        return self.label.verdict

    def wanted(self, question: Question) -> SameOrNot | None:
        """The right answer to one question; None where the label does not tell.

        Where only the meaning is said to differ, the role is not known: whoever labels need not go on to it.
        """
        if self.answer == "same":
            return "same"
        faults = self.label.faults
        if question == "meaning":
            return None if not faults else "not the same" if "meaning" in faults else "same"
        return "not the same" if "role" in faults else None


Verdicts = Mapping[Question, SameOrNot | None]
"""A judge's answer to each question on one pair; None: it abstained, or its reply could not be read."""


def overall(verdicts: Verdicts) -> SameOrNot | None:
    """The gate's view: `same` when both answers are, `not the same` when one is; None when neither holds."""
    answers = [verdicts[question] for question in QUESTIONS]
    if "not the same" in answers:
        return "not the same"
    return "same" if all(answer == "same" for answer in answers) else None


def measure(
    name: str, pairs: Sequence[LabelledPair], said: Callable[[LabelledPair], Verdicts], calls_per_pair: float
) -> JudgeMeasure:
    """Count a judge's verdicts on labelled pairs.

    Args:
        name: What the judge, or the way of counting its ballots, is called.
        pairs: At least one.
        said: Its answers on a pair.
        calls_per_pair: Model calls that one pair takes.
    """
    table = _table()
    questions: dict[str, dict[str, dict[str, int]]] = {question: _table() for question in QUESTIONS}
    for pair in pairs:
        verdicts = said(pair)
        table[pair.answer][overall(verdicts) or "abstained"] += 1
        for question in QUESTIONS:
            if (wanted := pair.wanted(question)) is not None:
                questions[question][wanted][verdicts[question] or "abstained"] += 1
    passed = {label: row["same"] for label, row in table.items()}
    totals = {label: sum(row.values()) for label, row in table.items()}
    right = passed["same"] + totals["not the same"] - passed["not the same"]
    shares = [
        part / totals[label]
        for label, part in (
            ("same", passed["same"]),
            ("not the same", totals["not the same"] - passed["not the same"]),
        )
        if totals[label]
    ]
    return JudgeMeasure(
        name=name,
        pairs=len(pairs),
        right=right,
        accuracy=wilson(right, len(pairs)),
        exact=clopper_pearson(right, len(pairs)),
        table=table,
        passed_wrongly=_share(passed["not the same"], totals["not the same"]),
        rejected_wrongly=_share(totals["same"] - passed["same"], totals["same"]),
        balanced=sum(shares) / 2 if len(shares) == 2 else None,
        always_same=totals["same"] / len(pairs),
        questions=questions,
        calls_per_pair=calls_per_pair,
    )


def _table() -> dict[str, dict[str, int]]:
    return {label: dict.fromkeys(("same", "not the same", "abstained"), 0) for label in ("same", "not the same")}


def _share(part: int, total: int) -> Interval | None:
    return wilson(part, total) if total else None


def settled(accuracy: Interval, target: float) -> Literal["above", "below", "open"]:
    """What an interval says of a target: the accuracy is above it, below it, or that is not settled."""
    return "above" if accuracy.low >= target else "below" if accuracy.high < target else "open"


def pairs_needed(share: float, target: float, *, level: float = 0.95) -> int | None:
    """The fewest pairs at which a measured `share` would settle whether the accuracy reaches `target`.

    None when more than 20,000 would be needed.
    """
    for n in range(1, _MOST_PAIRS + 1):
        if settled(wilson(round(share * n), n, level=level), target) != "open":
            return n
    return None
