"""Evidence from texts: a leak that is there is found, one that is not is not claimed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from optaware.data import HeldOut
from optaware.data._near import similarity
from optaware.data.evidence import collect_evidence, evidence_page, measure_leakage
from optaware.data.evidence._drift import kept_shares, reading_ease, shifted_words
from optaware.records import ChatRequest, Example
from optaware.tasks import get_task

RNG = np.random.default_rng
NOUNS = "film plot cast scene script ending score camera story villain hero town river garden letter".split()  # noqa: SIM905
VERBS = "moves turns stays falls sings waits grows fades opens closes runs shines".split()  # noqa: SIM905


def sentences(count: int) -> list[Example]:
    task, draw = get_task("sst2"), RNG(1)
    rows = []
    for n in range(count):
        text = " ".join([*draw.choice(NOUNS, 3), *draw.choice(VERBS, 3)])
        rows.append(task.example({"sentence": f"{text} ", "label": n % 2}, "train", n, "row"))
    return rows


def choices(count: int) -> list[Example]:
    task, draw = get_task("copa"), RNG(2)
    rows = []
    for n in range(count):
        a, b = (f"The {draw.choice(NOUNS)} {draw.choice(VERBS)} near the {draw.choice(NOUNS)}{k}." for k in "xy")
        premise = f"The {draw.choice(NOUNS)} {draw.choice(VERBS)}."
        row = {"premise": premise, "choice1": a, "choice2": b, "question": "cause", "label": int(draw.integers(2))}
        rows.append(task.example(row, "train", n, "row"))
    return rows


def with_spans(rows: list[Example], change: Callable[[Example, str], str]) -> list[Example]:
    task = get_task(rows[0].task)
    return [task.with_span(row, change(row, task.span_text(row).strip())) for row in rows]


def hint(row: Example, text: str) -> str:
    if row.task == "sst2":
        return f"{text} {'warmly' if row.label else 'drily'}"
    right = row.fields[f"choice{row.label + 1}"].split()
    return f"{text[:-1]} {' '.join(right[-2:])}"


@pytest.mark.parametrize("rows", [sentences(160), choices(160)], ids=["fixed labels", "own options"])
def test_a_leak_is_found_and_none_is_claimed_where_there_is_none(rows: list[Example]) -> None:
    task = get_task(rows[0].task)
    leaky = measure_leakage(task, rows, with_spans(rows, hint), rng=RNG(0))
    assert leaky is not None
    assert leaky.leaks
    assert leaky.difference.estimate > 0.2
    assert leaky.after > 0.7
    plain = measure_leakage(task, rows, with_spans(rows, lambda row, text: f"indeed {text}"), rng=RNG(0))
    assert plain is not None
    assert not plain.leaks
    assert plain.rows == 160
    # The same folds and texts give the same figures.
    assert measure_leakage(task, rows, with_spans(rows, hint), rng=RNG(0)) == leaky


def test_too_few_changed_rows_say_nothing() -> None:
    rows = sentences(60)
    after = with_spans(rows, lambda row, text: f"{text} indeed" if row.row < 39 else f"{text} ")
    assert measure_leakage(get_task("sst2"), rows, after, rng=RNG(0)) is None


def test_near_duplicates_by_minhash_are_those_by_comparing_all() -> None:
    draw = RNG(5)
    texts = [" ".join(draw.choice(NOUNS + VERBS, 12)) for _ in range(200)]
    index = HeldOut(texts)
    for number in range(0, 200, 10):
        words = texts[number].split()
        for edits in range(6):
            text = " ".join([*words[: 12 - edits], *draw.choice(["zeta", "kappa"], edits)])
            best = max(similarity(text, other) for other in texts)
            found = index.nearest(text)
            assert (found is not None) == (best >= 0.8)
            if found is not None:
                assert found[0] == best
    assert index.sha256 == HeldOut(texts[::-1]).sha256 != HeldOut(texts[1:]).sha256
    assert similarity("The Dog, ran!", "the dog ran") == 1.0


def test_readability_and_word_counts() -> None:
    easy, hard = "The cat sat on the mat. It was warm.", "Institutional heterogeneity necessitates reconciliation."
    assert reading_ease(easy) > 90 > 30 > reading_ease(hard)
    assert reading_ease("") == 0.0
    gained, lost = shifted_words(["a man ran"] * 20, ["a man walked"] * 20)
    assert [(item.word, item.rows_before, item.rows_after) for item in gained] == [("walked", 0, 20)]
    assert [item.word for item in lost] == ["ran"]
    kept = kept_shares(["He met Ann in 1962.", "She did not go."], ["He met her in 1962.", "She stayed."])
    assert {name: interval.estimate for name, interval in kept.items()} == {
        "names": 0.5,
        "numbers": 1.0,
        "negation": 0.5,
    }


def test_evidence_on_a_corpus(bench: Callable[..., Any]) -> None:
    made = bench("sst2", repeat=15)
    held_out = HeldOut(["a warm and funny little picture", "quite another thing altogether"])

    def reply(request: ChatRequest) -> str:
        if not request.key.startswith("rewrite"):
            return "not the same" if int(request.key.rsplit("/", 1)[-1]) % 4 == 1 else "same"
        words = made.span(request).split()
        return " ".join([words[-1], *words[:-1], "indeed"])

    made.build(reply)
    found = collect_evidence(made.folder, made.task, made.examples, held_out=held_out)
    assert (found.rows, found.changed) == (60, 45)
    assert [(row.label, row.rows, row.rewritten) for row in found.by_label] == [
        ("negative", 30, 15),
        ("positive", 30, 30),
    ]
    assert found.held_out.near_before == 15
    assert found.held_out.texts == 2
    words = next(item for item in found.drift if item.name == "words")
    assert words.difference.estimate == pytest.approx(1.0)
    page = evidence_page(found)
    assert "lie apart" in page
    assert "indeed 0 → 45" in page
    assert "Not measured" in page
