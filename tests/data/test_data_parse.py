from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optaware.data import parse_rewrite, parse_verdict
from optaware.records import ParseFailure

ORIGINAL = "The gardener covered the roses."
NEW = "The gardener put a cover over the roses."


@pytest.mark.parametrize(
    "reply",
    [
        NEW,
        f"  {NEW}\n",
        f'"{NEW}"',
        f"“{NEW}”",
        f"**{NEW}**",
        f"`{NEW}`",
        f"```\n{NEW}\n```",
        f"```text\n{NEW}\n```",
        f"Sure! Here it is:\n```\n{NEW}\n```\nI kept the meaning.",
        f"Premise: {NEW}",
        f'Premise: "{NEW}"',
        f"**Premise:** {NEW}",
        f"Rephrased premise: {NEW}",
        f"Rewritten premise:\n{NEW}",
        f"The rewritten sentence is: {NEW}",
        f"**Rewrite:** {NEW}",
        f"Here is the rewritten premise:\n\n{NEW}",
        f"Sure!\n{NEW}",
        f"Premise: {ORIGINAL}\nRewritten premise: {NEW}",
        f"Premise: {ORIGINAL}\n{NEW}",
        f"{ORIGINAL}\n{NEW}",
        f"You rewrite training data.\nPremise: {ORIGINAL}\nRewrite: {NEW}",
        f"{NEW}\n\nExplanation: I used simpler words.",
        f"{NEW}\n\n(Note: the meaning is the same.)",
        f"{NEW}\nThis rewrite keeps the same meaning.\nIt is also short.",
        f"<think>The user wants\na rewrite.</think>\n{NEW}",
        f"{NEW[:12]}   {NEW[13:]}",
    ],
)
def test_span_is_taken_out_of_the_reply(reply: str) -> None:
    assert parse_rewrite(reply, ORIGINAL, "Premise") == NEW


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("I'm sorry, but I can't help with that.", "refusal"),
        ("I’m sorry, I cannot rewrite this text.", "refusal"),
        ("As an AI language model, I have no opinion.", "refusal"),
        ("I cannot assist with this request.", "refusal"),
        ("1. One version.\n2. Another version.", "several lines"),
        (f"{NEW}\nThe roses were covered.", "several lines"),
        ("```\na\n```\n```\nb\n```", "code fences without one clear content"),
        ("```\nnever closed", "code fences without one clear content"),
    ],
)
def test_what_cannot_be_taken_is_a_failure_with_its_raw_text(reply: str, why: str) -> None:
    assert parse_rewrite(reply, ORIGINAL, "Premise") == ParseFailure(raw=reply, why=why)


@pytest.mark.parametrize("reply", ["", "  \n ", '""', "```\n\n```", "Rewritten premise:"])
def test_an_empty_reply_gives_an_empty_span(reply: str) -> None:
    assert parse_rewrite(reply, ORIGINAL, "Premise") == ""


@pytest.mark.parametrize(
    ("original", "reply"),
    [
        ('"Stop," she said, "now"', '"Halt," she said, "now"'),
        ("Note: the shop is closed.", "Note: the store is closed."),
        ("I cannot help him.", "I cannot help that man."),
        ("I'm sorry, but I can't come.", "Sorry, but I can't come."),
        ("Premise: it rains.", "Premise: rain falls."),
        ("first line\nsecond line", "line one\nline two"),
        ("run ```x``` now", "start ```x``` now"),
        ("say {{ name }} {% raw %}", "tell {{ name }} {% raw %}"),
        ("'quoted'", "'cited'"),
        ("Here: a dog.", "Here: a hound."),
        ("crème brûlée 🍮", "brûlée crème 🍮"),
    ],
)
def test_what_the_original_has_itself_is_left_alone(original: str, reply: str) -> None:
    assert parse_rewrite(reply, original, "Premise") == reply


def test_a_copy_of_the_original_stays_a_copy() -> None:
    assert parse_rewrite(f"Premise: {ORIGINAL}", ORIGINAL, "Premise") == ORIGINAL


@pytest.mark.parametrize("reply", ["same", "Same", " same.\n", '"same"', "**SAME**", "`same`", "<think>hm</think>same"])
def test_same(reply: str) -> None:
    assert parse_verdict(reply) == "same"


@pytest.mark.parametrize("reply", ["not the same", "Not the same.", "“Not  the\nsame”", "NOT THE SAME!"])
def test_not_the_same(reply: str) -> None:
    assert parse_verdict(reply) == "not the same"


@pytest.mark.parametrize(
    "reply",
    [
        "same meaning",
        "same, because both say so",
        "not same",
        "different",
        "yes",
        "same | not the same",
        "answer: same",
        "not the same. same",
        "the same",
        "",
        "\n",
        "se same",
    ],
)
def test_any_other_verdict_is_a_failure(reply: str) -> None:
    verdict = parse_verdict(reply)
    assert isinstance(verdict, ParseFailure)
    assert verdict.raw == reply
    assert verdict.why != "abstained"


@pytest.mark.parametrize("reply", ["Unsure.", "I don’t know", "cannot tell", "N/A"])
def test_an_abstention_is_told_apart(reply: str) -> None:
    assert parse_verdict(reply) == ParseFailure(raw=reply, why="abstained")


@given(st.text(), st.text(min_size=1))
def test_parsing_never_raises_and_never_returns_more_lines_than_asked(reply: str, original: str) -> None:
    parsed = parse_rewrite(reply, original, "Premise")
    if isinstance(parsed, str) and len(original.strip().splitlines()) <= 1:
        assert "\n" not in parsed
    parse_verdict(reply)
