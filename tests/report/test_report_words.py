import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optaware.records import Contrast, Interval
from optaware.report._analysis import Comparison
from optaware.report._claims import claim
from optaware.report._render import markdown_escape
from optaware.report._words import (
    duration,
    memory,
    number,
    p_value,
    percent,
    points,
    reason_words,
    short_reason,
    word_diff,
)

_WORDS = st.text(alphabet="ab cd,.'<é\n", max_size=40)


@given(_WORDS, _WORDS)
def test_word_differences_keep_both_texts(before, after):
    old, new = word_diff(before, after)
    assert "".join(text for _, text in old) == before
    assert "".join(text for _, text in new) == after
    assert {kind for kind, _ in old} <= {"same", "gone"}
    assert {kind for kind, _ in new} <= {"same", "new"}
    if before == after:
        assert {kind for kind, _ in old + new} <= {"same"}


def test_a_changed_phrase_is_one_mark():
    old, new = word_diff("it is very good", "it was quite good")
    assert old == [("same", "it "), ("gone", "is very"), ("same", " good")]
    assert new == [("same", "it "), ("new", "was quite"), ("same", " good")]


def test_very_long_texts_are_shown_unmarked():
    old, new = word_diff("a " * 3000, "b " * 3000)
    assert [kind for kind, _ in old + new] == ["same", "same"]


def test_numbers_for_people():
    assert percent(0.7532) == "75.3"
    assert points(-0.0124) == "−1.2"
    assert points(0.0124) == "+1.2"
    assert points(-0.0004) == "0.0"
    assert [p_value(value) for value in (None, 0.0004, 0.0312, 0.5)] == ["–", "< 0.001", "0.031", "0.50"]
    assert number(61250) == "61\u202f250"
    assert number(None) == number(float("nan")) == "–"
    assert [memory(size) for size in (512, 870 << 20, 2900 << 20)] == ["512 B", "870 MiB", "2.8 GiB"]
    assert [duration(seconds) for seconds in (None, 0.31, 12.0, 412.5, 7500)] == [
        *("–", "310 ms", "12.0 s", "6 min 52 s", "2 h 5 min"),
    ]


def test_gate_reasons_in_words():
    assert reason_words("judge:role") == "judge: role not the same"
    assert reason_words("judge:role-abstained") == "judge on role: gave no decision"
    assert reason_words("judge:meaning-call:http-500") == "judge on meaning: call failed, http-500"
    assert reason_words("check:length-ratio") == "check: length ratio"
    assert reason_words("something else") == "something else"


def test_reasons_are_one_line():
    assert short_reason("Traceback (most recent call last):\n  File x\nValueError: bad\n") == "ValueError: bad"
    assert short_reason("first\nsecond") == "first"
    assert short_reason("  ") == ""
    assert len(short_reason("x" * 1000)) == 300


def test_markdown_escape():
    assert markdown_escape("a | b\n# c <i> *d* [e](f) `g`") == "a \\| b \\# c &lt;i&gt; \\*d\\* \\[e\\](f) \\`g\\`"
    assert markdown_escape(3) == 3


def _comparison(low, high, corrected, verdict):
    contrast = Contrast(
        arm="oat",
        baseline="original",
        model="m",
        task="copa",
        method="mezo",
        seeds=(0, 1),
        n_examples=100,
        difference=Interval(estimate=(low + high) / 2, low=low, high=high, method="bootstrap"),
        p_value=0.01,
        p_method="sign flip",
        p_corrected=corrected,
        run_ids=("a", "b"),
    )
    return Comparison(contrast, verdict, "mezo, copa", 0.1)


@pytest.mark.parametrize(
    ("low", "high", "verdict", "expected"),
    [
        (0.01, 0.03, "higher", "oat is 2.0 points above original (95 % interval +1.0 to +3.0; p = 0.010"),
        (-0.03, 0.01, "open", "oat is 1.0 point below original (95 % interval −3.0 to +1.0; p = 0.010"),
        (-0.01, 0.01, "open", "oat is 0.0 points from original"),
    ],
)
def test_claims_say_what_was_seen(low, high, verdict, expected):
    said = claim(_comparison(low, high, 0.02, verdict))
    assert expected in said.seen.replace("\u00a0", " ")
    assert said.verdict.startswith(verdict if verdict != "open" else "no claim either way")


def test_importing_is_cheap():
    heavy = "jinja2 matplotlib scipy torch".split()  # noqa: SIM905
    code = f"import sys, optaware.report, optaware.stats; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
