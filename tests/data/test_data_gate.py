from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optaware.data._gate import decide, fitted, screen
from optaware.data._tries import candidate_grade, open_question, verdict_grade
from optaware.records import Candidate, Example, GateSpec, ParseFailure, Verdict
from optaware.tasks import get_task

TASK = get_task("copa")
ROW = {"premise": "A dog ran.", "choice1": "It saw a cat.", "choice2": "It was old.", "question": "cause", "label": 0}
EXAMPLE: Example = TASK.example(ROW, "train", 0, "row")


def candidate(**fields: Any) -> Candidate:
    base = {"example_id": EXAMPLE.id, "prompt_id": "p", "request_id": "r", "raw_reply": "x", "text": "The dog ran."}
    return Candidate.model_validate(base | fields)


def verdict(question: str, **fields: Any) -> Verdict:
    base = {"example_id": EXAMPLE.id, "question": question, "prompt_id": "p", "request_id": "r", "answer": None}
    return Verdict.model_validate(base | fields)


ABSTAINED = {"raw": "?", "why": "abstained"}
SAME = {question: verdict(question, answer="same") for question in ("meaning", "role")}


@pytest.mark.parametrize(
    ("given_candidate", "given_verdicts", "outcome", "reason"),
    [
        ({}, SAME, "accepted", "accepted"),
        ({"text": "A  dog ran. "}, {}, "accepted", "identical"),
        ({"text": None, "error": "refusal: no"}, {}, "failed", "call:refusal"),
        ({"text": None, "failure": {"raw": "x", "why": "several lines"}}, {}, "failed", "reply:several lines"),
        ({"text": ""}, {}, "rejected", "check:empty"),
        ({"text": "The dog never ran."}, SAME, "rejected", "check:negation"),
        ({"text": "A dog saw a cat and ran."}, SAME, "rejected", "check:answer-leaked"),
        ({}, {"meaning": verdict("meaning", answer="not the same")}, "rejected", "judge:meaning"),
        ({}, SAME | {"role": verdict("role", answer="not the same")}, "rejected", "judge:role"),
        (
            {},
            {"meaning": verdict("meaning", failure={"raw": "?", "why": "abstained"})},
            "rejected",
            "judge:meaning-abstained",
        ),
        ({}, SAME | {"role": verdict("role", failure={"raw": "?", "why": "x"})}, "failed", "judge:role-unparsed"),
        ({}, {"meaning": verdict("meaning", error="http-400: too long")}, "failed", "judge:meaning-call:http-400"),
        ({}, {}, "failed", "judge:meaning-missing"),
    ],
)
def test_decisions(given_candidate: dict[str, Any], given_verdicts: Any, outcome: str, reason: str) -> None:
    made = candidate(**given_candidate)
    checks = screen(TASK, EXAMPLE, made, GateSpec(), "")
    decided = decide(EXAMPLE, "A dog ran.", made, checks, given_verdicts)
    assert (decided.outcome, decided.reason) == (outcome, reason)
    assert decided.original == "A dog ran."
    assert decided.checks == checks


def test_names_alone_do_not_reject() -> None:
    made = candidate(text="Our Rex ran, a dog.")
    checks = screen(TASK, EXAMPLE, made, GateSpec(), "")
    assert [check.name for check in checks if not check.passed] == ["names"]
    assert decide(EXAMPLE, "A dog ran.", made, checks, SAME).outcome == "accepted"


def test_the_judge_is_asked_only_what_can_still_matter() -> None:
    def asked(made: Candidate, said: dict[Any, Verdict]) -> str | None:
        checks = screen(TASK, EXAMPLE, made, GateSpec(), "")
        answers = {question: verdict_grade(each) for question, each in said.items()}
        return open_question(candidate_grade(made, checks), answers)

    assert asked(candidate(), {}) == "meaning"
    assert asked(candidate(), {"meaning": SAME["meaning"]}) == "role"
    assert asked(candidate(), SAME) is None
    assert asked(candidate(), {"meaning": verdict("meaning", answer="not the same")}) is None
    assert asked(candidate(), {"meaning": verdict("meaning", error="http-503: busy")}) == "meaning"
    assert asked(candidate(), {"meaning": verdict("meaning", error="http-400: no")}) is None
    for text in ("", "A dog ran.", "The dog never ran."):
        assert asked(candidate(text=text), {}) is None


verdicts = st.dictionaries(
    st.sampled_from(["meaning", "role"]),
    st.sampled_from(
        [
            {"answer": "same"},
            {"answer": "not the same"},
            {"failure": ParseFailure(raw="?", why="abstained")},
            {"failure": ParseFailure(raw="?", why="neither")},
            {"error": "http-400: x"},
        ]
    ),
)


@given(st.one_of(st.none(), st.text(), st.just("The dog ran.")), verdicts)
def test_accepted_means_both_questions_were_answered_same_or_nothing_changed(text: str | None, said: Any) -> None:
    made = candidate(text=text, failure=None if text is not None else ParseFailure(raw="", why="x"))
    checks = screen(TASK, EXAMPLE, made, GateSpec(), "")
    answers = {question: verdict(question, **fields) for question, fields in said.items()}
    decided = decide(EXAMPLE, "A dog ran.", made, checks, answers)
    both = all(answers.get(question) is not None and answers[question].answer == "same" for question in SAME)
    clean = text is not None and all(check.passed for check in checks if check.blocking)
    identical = any(check.name == "identical" and not check.passed for check in checks)
    assert (decided.outcome == "accepted") == (clean and (identical or both))


@given(st.text(), st.text(min_size=1))
def test_a_rewrite_keeps_the_white_space_around_the_original(before: str, text: str) -> None:
    made = fitted(before, text)
    if before.strip():
        left = before[: len(before) - len(before.lstrip())]
        right = before[len(before.rstrip()) :]
        assert made == left + text.strip() + right
