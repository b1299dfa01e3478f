"""What a planner of any size gets slightly wrong, put right by rule and said; and what is no ablation at all."""

from __future__ import annotations

import re
from collections.abc import Iterable

from optaware.plan._check import is_generic
from optaware.plan._value_words import is_removal
from optaware.plan._words import normal_text
from optaware.records import AblationEntry, PaperCard

__all__ = ["EXAMPLES", "main_metric", "mend_entry", "no_part"]

EXAMPLES = ("Warm-up length", "No label smoothing")
"""Names in the prompts' example; an entry that copies one of them says nothing about the paper."""

_PLACE = re.compile(
    r"(?:(?:in|see|from|of)\s+)?(?:(?:figure|fig\.?|table|tab\.?|section|sec\.?|§|algorithm|equation|eq\.?|appendix|page)\s*)?"
    r"[(]?(?:\d+(?:\.\d+)*|[A-Z](?:\.\d+)*|[ivx]+)[)]?\.?",
    re.I,
)
_PLACE_WORDS = frozenset(["figure", "table", "section", "algorithm", "equation", "appendix", "page"])
_NUMBER = re.compile(r"^(?:\d+(?:\.\d+)*\.?|[A-Z](?:\.\d+)+\.?)\s+")
_OUTCOMES = ("accuracy", "F1", "perplexity", "BLEU", "ROUGE", "AUC", "win rate", "loss")
_NO_METRIC = frozenset(["", "none", "n/a", "na", "null", "unknown", "-"])


def main_metric(card: PaperCard) -> str | None:
    """The outcome that the paper's text names most often (accuracy, F1, …); None when it names none that is known."""
    counts = {name: len(re.findall(rf"\b{name}\b", card.text, re.I)) for name in _OUTCOMES}
    best = max(_OUTCOMES, key=lambda name: counts[name])
    return best if counts[best] else None


def mend_entry(entry: AblationEntry, metric: str | None = None) -> tuple[AblationEntry, list[str]]:
    """An entry that says the same in the form that is asked for, and what was changed.

    A REPLACE whose only values mean removal becomes REMOVE; an ADD whose only values mean nothing has none; a value
    that is listed twice is listed once; a metric that is called "none" is left out; where the part is but a number of a
    figure or section, the name, which says what is changed, stands in its place; an entry that measures nothing gets
    `metric`.
    """
    notes: list[str] = []
    changes: dict[str, object] = {}
    values = entry.values
    if _is_place(entry.ablated_part) and _tells(entry.name):
        changes["ablated_part"] = entry.name
        notes.append(f"{entry.name}: the part was given as {entry.ablated_part!r}; the name stands in its place")
    if values and isinstance(entry.replacement, tuple | list):
        if entry.action != "REMOVE" and all(is_removal(value) for value in values):
            changes["replacement"] = None
            if entry.action == "REPLACE":
                changes["action"] = "REMOVE"
            notes.append(f"{entry.name}: {entry.action} by {values[0].text!r} is written as {_action(entry.action)}")
        else:
            once = {normal_text(value.text): value for value in reversed(values)}
            if len(once) < len(values):
                changes["replacement"] = tuple(reversed(once.values()))
                notes.append(f"{entry.name}: values that were listed twice are listed once")
    kept = tuple(text for text in entry.metrics if normal_text(text) not in _NO_METRIC)
    if len(kept) < len(entry.metrics):
        changes["metrics"] = kept
        notes.append(f"{entry.name}: a metric called 'none' is left out")
    if not kept and metric is not None:
        changes["metrics"] = (metric,)
        notes.append(f"{entry.name}: it named no metric; {metric}, which the paper names most often, is taken")
    return (entry.model_copy(update=changes) if changes else entry), notes


def _is_place(part: str) -> bool:
    return _PLACE.fullmatch(" ".join(part.split())) is not None


def _tells(name: str) -> bool:
    """Whether a name says what is changed: it is neither a place in the paper nor one like "Ablation 1"."""
    words = set(normal_text(name).split())
    return not _is_place(name) and not is_generic(name) and bool(words - _PLACE_WORDS)


def _action(given: str) -> str:
    return "REMOVE" if given == "REPLACE" else f"{given} without values"


def no_part(entry: AblationEntry, card: PaperCard) -> str | None:
    """Why an entry's part is no part of a method: a figure or section number, a heading of the results, an example."""
    part = " ".join(entry.ablated_part.split())
    if _is_place(part):
        return f"{part!r} is a place in the paper, not a part of its method"
    titles = _titles(card, {"abstract", "introduction", "related", "experiments", "results", "conclusion"})
    if normal_text(_NUMBER.sub("", part)) in titles:
        return f"{part!r} is a heading of the paper, not a part of its method"
    if entry.name in EXAMPLES:
        return "it repeats the example"
    return None


def _titles(card: PaperCard, roles: Iterable[str]) -> set[str]:
    wanted = set(roles)
    return {normal_text(_NUMBER.sub("", section.title)) for section in card.sections if section.role in wanted}
