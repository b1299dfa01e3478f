"""The rejection gate: what becomes of one row."""

from __future__ import annotations

from collections.abc import Mapping

from optaware.data._checks import run_checks
from optaware.data._near import HeldOut
from optaware.data._parse import ABSTAINED
from optaware.data._prompts import QUESTIONS, Question
from optaware.records import AutomaticCheck, Candidate, Decision, Example, GateSpec, Verdict
from optaware.tasks import Task

__all__ = ["blocked_by", "decide", "fitted", "is_unchanged", "screen"]


def fitted(before: str, text: str) -> str:
    """`text` between the white space that stands around `before`, so that a rewrite changes words and no layout."""
    body = before.strip()
    if not body:
        return text
    at = before.index(body)
    return before[:at] + text.strip() + before[at + len(body) :]


def screen(
    task: Task,
    example: Example,
    candidate: Candidate,
    gate: GateSpec,
    prompt: str,
    held_out: HeldOut | None = None,
) -> tuple[AutomaticCheck, ...]:
    """The automatic checks of a candidate; none when there is no text."""
    if candidate.text is None:
        return ()
    return run_checks(task, example, candidate.text, gate, prompt=prompt, held_out=held_out)


def blocked_by(checks: tuple[AutomaticCheck, ...]) -> str | None:
    """Name of the first blocking check that failed."""
    return next((check.name for check in checks if check.blocking and not check.passed), None)


def is_unchanged(checks: tuple[AutomaticCheck, ...]) -> bool:
    """Whether the rewrite is the original."""
    return any(check.name == "identical" and not check.passed for check in checks)


def decide(
    example: Example,
    before: str,
    candidate: Candidate,
    checks: tuple[AutomaticCheck, ...],
    verdicts: Mapping[Question, Verdict],
) -> Decision:
    """Apply the gate to one row.

    Reasons, in the order in which they are looked for: `call:<code>` and `reply:<why>` (failed); `check:<name>`
    (rejected); `identical` (accepted, the row stays as it is); `judge:<question>` (not the same: rejected),
    `judge:<question>-abstained` (rejected), `judge:<question>-unparsed` and `judge:<question>-call:<code>` (failed);
    `accepted`.
    """

    def decision(outcome: str, reason: str) -> Decision:
        return Decision.model_validate(
            {
                "example_id": example.id,
                "outcome": outcome,
                "reason": reason,
                "original": before,
                "rewritten": candidate.text,
                "checks": checks,
            }
        )

    if candidate.error is not None:
        return decision("failed", f"call:{_code(candidate.error)}")
    if candidate.failure is not None or candidate.text is None:
        return decision("failed", f"reply:{candidate.failure.why if candidate.failure else 'none'}")
    if blocked := blocked_by(checks):
        return decision("rejected", f"check:{blocked}")
    if is_unchanged(checks):
        return decision("accepted", "identical")
    for question in QUESTIONS:
        verdict = verdicts.get(question)
        if verdict is None:
            return decision("failed", f"judge:{question}-missing")
        if verdict.error is not None:
            return decision("failed", f"judge:{question}-call:{_code(verdict.error)}")
        if verdict.failure is not None and verdict.failure.why == ABSTAINED:
            return decision("rejected", f"judge:{question}-abstained")
        if verdict.answer is None:
            return decision("failed", f"judge:{question}-unparsed")
        if verdict.answer != "same":
            return decision("rejected", f"judge:{question}")
    return decision("accepted", "accepted")


def _code(error: str) -> str:
    return error.split(":", 1)[0]
