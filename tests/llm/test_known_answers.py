"""An answer must not be given to two requests, also when two connections in a row are out of step."""

from __future__ import annotations

from optaware.llm._known import KnownAnswers
from optaware.llm._wire import Completion


def answer(name: str) -> tuple[bytes, Completion]:
    return name.encode(), Completion(f"answer to {name}", None, "stop", 1, 1, id=f"chatcmpl-{name}")


def test_two_different_repeats_in_a_row_are_both_turned_away() -> None:
    known = KnownAnswers()
    assert known.repeated(*answer("a"), None) is None
    assert known.repeated(*answer("b"), None) is None
    first = known.repeated(*answer("a"), None)
    assert first is not None
    second = known.repeated(*answer("b"), first)
    assert second not in (None, first)
    assert known.repeated(*answer("c"), second) is None


def test_the_same_repeat_twice_is_what_the_endpoint_means() -> None:
    known = KnownAnswers()
    assert known.repeated(*answer("a"), None) is None
    first = known.repeated(*answer("a"), None)
    assert known.repeated(*answer("a"), first) is None


def test_an_endpoint_that_names_all_its_answers_alike_is_soon_not_checked_any_more() -> None:
    known = KnownAnswers()
    asked_again = 0
    for _ in range(50):
        digest = known.repeated(*answer("static"), None)
        if digest is not None:
            asked_again += 1
            assert known.repeated(*answer("static"), digest) is None
    assert asked_again == 8
