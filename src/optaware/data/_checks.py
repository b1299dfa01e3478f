"""Checks of a rewrite that need no judge. They never look at which answer is right."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from optaware.data._language import language_change
from optaware.data._near import NEAR, HeldOut, similarity
from optaware.data._words import (
    bare_words,
    contains_run,
    content_words,
    count_words,
    names,
    negated,
    number_words,
    numbers,
    soft_negations,
    words,
)
from optaware.records import AutomaticCheck, Example, GateSpec
from optaware.tasks import Task

__all__ = ["BLOCKING", "row_options", "run_checks"]

BLOCKING: Mapping[str, bool] = {
    "empty": True,
    "identical": False,
    "label-leaked": True,
    "answer-leaked": True,
    "numbers": True,
    "names": False,
    "negation": True,
    "length-ratio": True,
    "prompt-repeated": True,
    "language": True,
    "orders": True,
    "near-duplicate": True,
}
"""Which checks reject a rewrite by themselves.

Blocking are those whose hits are nearly always faults, or faults that no judge should have to find: nothing to use,
the prompt in place of an answer, a leaked label, a changed number, a lost or new negation, a length outside of the
gate. `names` only reports: "U.S." for "American" or "the President" trips it too often. `identical` is no fault: the
row stays as it is. `orders` blocks a row for good: a text that tells the judge what to answer cannot be judged by it,
whoever wrote the order. A false alarm costs one rewrite; the original row is used.

The gold label plays no part in any check: a gate that rejected, say, "great" in positive rows only would itself write
the label into the corpus.
"""

_PARROTED_WORDS = 7
_ORDERS = re.compile(
    r"\b(?:answer|verdict|output|reply|respond|response|say|judg(?:e)?ment)\b\W{0,4}(?:with|is|by\s+saying|must\s+be|should\s+be)?"
    r"\W{0,4}\b(?:not\s+the\s+)?same\b(?!\s+\w)"
    r"|\b(?:ignore|disregard|forget)\b\s+(?:all\s+|any\s+)?(?:of\s+)?(?:the\s+|your\s+)?"
    r"(?:previous|above|prior|earlier|preceding)\s+(?:instruction|prompt|rule|order|message|text)s?\b"
    r"|\bignore\s+(?:everything|all)\s+(?:above|before)\b",
    re.IGNORECASE,
)
_MARKS = ("<|", "[inst]", "{{", "{%", "rewrite:", "rewritten:", "original:")


def run_checks(
    task: Task,
    original: Example,
    text: str,
    gate: GateSpec,
    *,
    prompt: str = "",
    held_out: HeldOut | None = None,
) -> tuple[AutomaticCheck, ...]:
    """Run all automatic checks on one rewrite.

    - `empty`: no letter and no digit.
    - `identical`: nothing but white space differs from the original span. Never blocking.
    - `label-leaked`: one of the task's label words is new in the span.
    - `answer-leaked`: an option of this row is new in the span: whole, or at least two and 60 % of its content words.
    - `numbers`: the numbers differ; digits and number words are compared by value.
    - `names`: a capitalised word within a sentence is lost or new.
    - `negation`: one side negates, and the other neither negates nor has a word of its own that may stand for it.
    - `length-ratio`: words of the rewrite over words of the original lie outside the gate's bounds.
    - `prompt-repeated`: marks of a prompt, or seven words running that stand in the prompt, but not in the original.
    - `language`: another script than the original's, or function words of another language in place of English ones.
    - `orders`: the original or the rewrite tells its reader what to answer, or to forget instructions.
    - `near-duplicate`: the rewrite is a near-duplicate of a held-out text, and the original is not.

    Args:
        task: The task.
        original: The original row.
        text: The rewritten span.
        gate: Bounds of the length ratio.
        prompt: What the rewriter was told before the row.
        held_out: Spans of the dev and test rows; None: not looked at.

    Returns:
        One result for every check, in a fixed order.
    """
    before = task.span_text(original)
    found = {
        "empty": None if any(char.isalnum() for char in text) else "no letter and no digit",
        "identical": "the span did not change" if text.split() == before.split() else None,
        "label-leaked": _first(_label_leaks(task, original, before, text)),
        "answer-leaked": _first(_answer_leaks(task, original, before, text)),
        "numbers": _numbers(before, text),
        "names": _names(before, text),
        "negation": _negation(before, text),
        "length-ratio": _length(before, text, gate),
        "prompt-repeated": _repeated(before, text, prompt),
        "language": language_change(before, text),
        "orders": _orders(before, text),
        "near-duplicate": None if held_out is None else _near(before, text, held_out),
    }
    return tuple(
        AutomaticCheck.model_validate(
            {"name": name, "passed": detail is None, "blocking": BLOCKING[name], "detail": detail or ""}
        )
        for name, detail in found.items()
    )


def _first(found: Iterator[str]) -> str | None:
    return next(found, None)


def row_options(task: Task, example: Example) -> tuple[list[str], list[str]]:
    """Label words of the task, and options that are this row's own text: one of the two is empty."""
    # The label's own column is left out: where it holds the label in words, it would pass for an option of the row,
    # and the checks would know which answer is right.
    others = (value for name, value in example.fields.items() if name not in (task.span, task.label_field))
    texts = {text for value in others for text in _texts(value)}
    names = [str(option) for option in _as_list(task.context(example)["options"])]
    own = [option for option in names if option.strip() in texts]
    if own:
        return [], own
    return [*names, *(option.strip() for option in task.render(example).options)], []


def _as_list(value: object) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value.strip()
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)


def _label_leaks(task: Task, example: Example, before: str, text: str) -> Iterator[str]:
    old, new = words(before), words(text)
    for label in row_options(task, example)[0]:
        run = words(label)
        if len(label.strip()) > 1 and contains_run(new, run) and not contains_run(old, run):
            yield f"{label!r} is new in the text"


def _answer_leaks(task: Task, example: Example, before: str, text: str) -> Iterator[str]:
    old, new = words(before), words(text)
    fresh = content_words(text) - content_words(before)
    for option in row_options(task, example)[1]:
        run, content = words(option), content_words(option)
        shared = content & fresh
        if contains_run(new, run) and not contains_run(old, run):
            yield f"{option!r} is new in the text"
        elif len(shared) >= 2 and len(shared) >= 0.6 * len(content):
            yield f"most of {option!r} is new in the text ({', '.join(sorted(shared))})"


def _numbers(before: str, text: str) -> str | None:
    (old_digits, old_words), (new_digits, new_words) = numbers(before), numbers(text)
    lost = (old_digits | old_words) - (new_digits | new_words) - number_words(text)
    added = (new_digits | new_words) - (old_digits | old_words) - number_words(before)
    return _difference(lost, added)


def _difference(lost: set[str], added: set[str]) -> str | None:
    parts = [f"{what}: {', '.join(sorted(items))}" for what, items in (("lost", lost), ("new", added)) if items]
    return "; ".join(parts) or None


def _names(before: str, text: str) -> str | None:
    old, new = names(before), names(text)
    if old is None or new is None:
        return None
    return _difference(old - bare_words(text), new - bare_words(before))


def _negation(before: str, text: str) -> str | None:
    old, new = soft_negations(before), soft_negations(text)
    if negated(before) and not negated(text) and not new - old:
        return "a negation is lost"
    if negated(text) and not negated(before) and not old - new:
        return "a negation is new"
    return None


def _length(before: str, text: str, gate: GateSpec) -> str | None:
    old, new = count_words(before), count_words(text)
    ratio = new / max(old, 1)
    if gate.min_length_ratio <= ratio <= gate.max_length_ratio:
        return None
    return f"{new} words for {old} (ratio {ratio:.2f})"


def _repeated(before: str, text: str, prompt: str) -> str | None:
    low, old = text.casefold(), before.casefold()
    for mark in _MARKS:
        if mark in low and mark not in old:
            return f"{mark!r} stands in the text"
    new, told, known = words(text), " ".join(words(prompt)), " ".join(words(before))
    for at in range(len(new) - _PARROTED_WORDS + 1):
        run = " ".join(new[at : at + _PARROTED_WORDS])
        if run in told and run not in known:
            return f"{run!r} stands in the prompt"
    return None


def _orders(before: str, text: str) -> str | None:
    for name, side in (("original", before), ("rewrite", text)):
        if (found := _ORDERS.search(side)) is not None:
            return f"the {name} tells its reader: {' '.join(found.group().split())!r}"
    return None


def _near(before: str, text: str, held_out: HeldOut) -> str | None:
    found = held_out.nearest(text)
    if found is None or similarity(before, found[1]) >= NEAR:
        return None
    return f"similarity {found[0]:.2f} with a held-out text"
