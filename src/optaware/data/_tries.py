"""Where each try of each row stands: one byte a try, so that a large corpus can be looked over without reading it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from optaware.data._gate import blocked_by, is_unchanged
from optaware.data._ledger import is_transient
from optaware.data._prompts import QUESTIONS, Question
from optaware.records import AutomaticCheck, Candidate, CorpusSpec, JudgeReason, Verdict

__all__ = [
    "ANSWERED",
    "SAME",
    "SETTLED",
    "TRANSIENT",
    "Stand",
    "Tries",
    "candidate_grade",
    "open_question",
    "verdict_grade",
]

TRANSIENT = 1
"""An error that may pass: neither here nor there. All higher grades are settled."""
SETTLED = 2
# Candidates
FAILED, UNPARSED, BLOCKED, IDENTICAL, OPEN = 2, 3, 4, 5, 6
# Verdicts
SAME, OTHER = 2, 3
# Reasons of the judge
ANSWERED = 2


class Stand:
    """Names of a candidate's grades, for reading code: `FAILED` for good, `UNPARSED`, `BLOCKED` by a check,
    `IDENTICAL` to the original, `OPEN` for the judge."""

    FAILED, UNPARSED, BLOCKED, IDENTICAL, OPEN = FAILED, UNPARSED, BLOCKED, IDENTICAL, OPEN


def candidate_grade(candidate: Candidate, checks: tuple[AutomaticCheck, ...]) -> int:
    """Grade of a candidate."""
    if candidate.error is not None:
        return TRANSIENT if is_transient(candidate) else FAILED
    if candidate.text is None:
        return UNPARSED
    if blocked_by(checks):
        return BLOCKED
    return IDENTICAL if is_unchanged(checks) else OPEN


def verdict_grade(verdict: Verdict | JudgeReason) -> int:
    """Grade of a verdict, or of a reason."""
    if is_transient(verdict):
        return TRANSIENT
    if isinstance(verdict, JudgeReason):
        return ANSWERED
    return SAME if verdict.answer == "same" else OTHER


def open_question(stand: int, answers: Mapping[Question, int]) -> Question | None:
    """The next question that the judge has to answer on a candidate; None when nothing is left to ask.

    `role` is asked only after `meaning` was answered `same`: a row that fails one question is out, so the other would
    be paid for nothing. Identical and blocked candidates are not judged at all.

    Args:
        stand: Grade of the candidate.
        answers: Grades of its verdicts; 0 for none.
    """
    if stand != OPEN:
        return None
    for question in QUESTIONS:
        answer = answers.get(question, 0)
        if answer < SETTLED:
            return question
        if answer != SAME:
            return None
    return None


@dataclass(frozen=True)
class Tries:
    """Which tries there are, and in which rounds they are made.

    Attributes:
        sampled: Rewrites of every row, whatever becomes of them (1, or more in a search).
        retries: Further tries of rows of which none has passed.
    """

    sampled: int
    retries: int

    @classmethod
    def of(cls, spec: CorpusSpec) -> Tries:
        """The tries that a spec asks for."""
        return cls(spec.search.candidates if spec.search else 1, spec.retries)

    @property
    def most(self) -> int:
        """Most tries of a row."""
        return self.sampled + self.retries

    def rounds(self) -> Iterator[range]:
        """Tries that are asked for together: the sampled ones, then each retry, which needs those before."""
        yield range(self.sampled)
        for attempt in range(self.sampled, self.most):
            yield range(attempt, attempt + 1)

    def slot(self, row: int, attempt: int) -> int:
        """Slot of a candidate."""
        return row * self.most + attempt

    def verdict_slot(self, row: int, attempt: int, question: Question) -> int:
        """Slot of a verdict."""
        return len(QUESTIONS) * self.slot(row, attempt) + QUESTIONS.index(question)
