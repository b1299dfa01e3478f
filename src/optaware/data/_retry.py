"""Trying again: what the judge is asked about a rewrite that it rejected, and what the rewriter is told."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from optaware._io import canonical_json, text_sha256
from optaware.data._prompts import Question
from optaware.records import AutomaticCheck, Candidate, ChatMessage, JudgeReason, Verdict

__all__ = ["RETRY_PROMPT_ID", "reason_messages", "retry_messages", "why_rejected"]

_ASK_WHY = "In one short sentence: what does one text say that the other does not? Name the difference only."
_AGAIN = (
    "That rewrite cannot be used: {why}\n"
    "Rewrite the same text once more so that this fault is gone. All rules from above still hold. Answer with the "
    "rewrite only."
)
_QUESTIONS: Mapping[Question, str] = {
    "meaning": "it does not mean the same as the original.",
    "role": "it no longer plays the same part in the example.",
}
_CHECKS: Mapping[str, str] = {
    "empty": "it holds no words.",
    "label-leaked": "it gives away an answer",
    "answer-leaked": "it gives away an answer",
    "numbers": "its numbers are not those of the original",
    "negation": "a negation was lost or added",
    "length-ratio": "its length is too far from that of the original",
    "prompt-repeated": "it repeats parts of the instructions",
    "language": "it is not in the language of the original",
    "orders": "it holds an order to whoever reads it",
    "near-duplicate": "it comes too close to a text that is kept for testing.",
}
_MOST = 240

RETRY_PROMPT_ID = text_sha256(
    canonical_json({"retry_version": 1, "why": _ASK_WHY, "again": _AGAIN, "questions": _QUESTIONS, "checks": _CHECKS})
)
"""Content hash of all that is said here."""


def reason_messages(asked: Sequence[ChatMessage], verdict: Verdict) -> tuple[ChatMessage, ...]:
    """The judge's own conversation about a rewrite, and the question why it was rejected."""
    return (
        *asked,
        ChatMessage(role="assistant", content=verdict.answer or "not the same"),
        ChatMessage(role="user", content=_ASK_WHY),
    )


def why_rejected(
    candidate: Candidate,
    checks: Sequence[AutomaticCheck],
    verdicts: Mapping[Question, Verdict],
    reasons: Mapping[Question, JudgeReason],
) -> str | None:
    """Why a try was rejected, in one line for the rewriter; None when there is nothing that a further try could mend.

    Calls that failed are not mended by trying again, and a rewrite that passed has no fault. What the judge said stands
    in quotes, cut to a line. It is asked about `meaning` only, where it sees nothing but the two texts: with `role` it
    sees the right answer, which the rewriter must not learn.
    """
    if candidate.error is not None:
        return None
    if candidate.failure is not None or candidate.text is None:
        why = candidate.failure.why if candidate.failure else "no text"
        return f"the answer was not the rewrite alone ({why})."
    for check in checks:
        if check.blocking and not check.passed:
            words = _CHECKS[check.name]
            return words if words.endswith(".") else f"{words} ({_line(check.detail)})."
    for question, verdict in verdicts.items():
        if verdict.error is not None or verdict.answer == "same":
            continue
        reason = reasons.get(question)
        if reason is None or not reason.text:
            return _QUESTIONS[question]
        return f"{_QUESTIONS[question]} The judge says: {json.dumps(_line(reason.text), ensure_ascii=False)}"
    return None


def retry_messages(asked: Sequence[ChatMessage], candidate: Candidate, why: str) -> tuple[ChatMessage, ...]:
    """The rewriter's conversation about a row, its last try, and why that cannot be used."""
    said = candidate.text if candidate.text is not None else (candidate.raw_reply or "")[: 4 * _MOST]
    return (
        *asked,
        ChatMessage(role="assistant", content=said.strip() or "(nothing)"),
        ChatMessage(role="user", content=_AGAIN.format(why=why)),
    )


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _MOST else line[: _MOST - 1] + "…"
