from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from optaware.plan._value_words import is_removal
from optaware.plan._words import bracketed, content_words, normal_text, number_words
from optaware.records import AblationEntry, PlanValue

__all__ = ["LexicalMatcher", "MatchVerdict", "Matcher"]


@dataclass(frozen=True)
class MatchVerdict:
    """Whether two ablations are the same.

    Attributes:
        matched: They are. What is unclear is no match.
        clear: Whether the matcher could tell.
        why: The first thing that differs, or what they share.
    """

    matched: bool
    clear: bool
    why: str


class Matcher(Protocol):
    """Decides whether a planned ablation is the one of the reference; scores depend on it, so it is recorded."""

    @property
    def identity(self) -> str:
        """Name and version, as it stands in a score."""
        ...

    def match(self, planned: AblationEntry, reference: AblationEntry) -> MatchVerdict:
        """Compare one planned ablation with one of the reference."""
        ...


class LexicalMatcher:
    """Matches by words and structure, offline and the same way round: same part, compatible action, a common value.

    *Part*: `o = |A ∩ B| / min(|A|, |B|)` and `j = |A ∩ B| / |A ∪ B|` over the stems A, B of the telling words. The same
    when `j ≥ 0.5`, or when a bracketed name is the same and `o ≥ 0.5`, or when `o = 1` with two shared words or more;
    unclear from `o ≥ 0.5`; else different. Numbers in them must agree.
    *Action*: equal, or REMOVE beside a REPLACE whose values include a removal ("none", "no …", "without …").
    *Value*: REMOVE needs none. Otherwise one value in common: numbers of equal size, percentages alike, or text whose
    words overlap by half or more with the same numbers. A side without values is unclear, unless both add the part.

    It reads no meaning: synonyms do not match, so its scores are lower bounds, and comparable only with each other.
    """

    identity = "lexical/1"

    def match(self, planned: AblationEntry, reference: AblationEntry) -> MatchVerdict:
        """Compare part, action and values, in this order."""
        for step in (_part, _action, _value):
            verdict = step(planned, reference)
            if not verdict.matched:
                return verdict
        return MatchVerdict(True, True, "same part, compatible action, common value")


def _part(one: AblationEntry, other: AblationEntry) -> MatchVerdict:
    a, b = content_words(one.ablated_part), content_words(other.ablated_part)
    shared = len(a & b)
    overlap, union = shared / max(1, min(len(a), len(b))), shared / max(1, len(a | b))
    named = bool(bracketed(one.ablated_part) & bracketed(other.ablated_part))
    numbers = (number_words(a), number_words(b))
    if all(numbers) and numbers[0] != numbers[1]:
        return MatchVerdict(False, True, "other part: its numbers differ")
    if union >= 0.5 or (named and overlap >= 0.5) or (overlap == 1 and shared >= 2):
        return MatchVerdict(True, True, "same part")
    if overlap >= 0.5:
        return MatchVerdict(False, False, "part unclear: only some words are shared")
    return MatchVerdict(False, True, "other part")


def _removes(entry: AblationEntry) -> bool:
    return entry.action == "REMOVE" or any(map(is_removal, entry.values))


def _action(one: AblationEntry, other: AblationEntry) -> MatchVerdict:
    if one.action == other.action:
        return MatchVerdict(True, True, "same action")
    if {one.action, other.action} == {"REMOVE", "REPLACE"}:
        both = _removes(one) and _removes(other)
        return MatchVerdict(both, True, "both remove the part" if both else "other action")
    return MatchVerdict(False, {one.action, other.action} != {"ADD", "REPLACE"}, "other action")


def _value(one: AblationEntry, other: AblationEntry) -> MatchVerdict:
    if _removes(one) and _removes(other):
        return MatchVerdict(True, True, "both remove the part")
    if not one.values and not other.values and one.action == "ADD":
        return MatchVerdict(True, True, "both add the part")
    if not one.values or not other.values:
        return MatchVerdict(False, False, "values unclear: one side gives none")
    for a in one.values:
        for b in other.values:
            if _same_value(a, b):
                return MatchVerdict(True, True, f"both try {a.text}")
    return MatchVerdict(False, True, "no common value")


def _same_value(one: PlanValue, other: PlanValue) -> bool:
    numbers = ("integer", "number")
    if one.kind in numbers and other.kind in numbers:
        return bool(abs(one.value - other.value) <= 1e-9 * max(abs(one.value), abs(other.value)))
    if one.kind == "percent" and other.kind == "percent":
        return bool(one.value == other.value)
    if normal_text(one.text) == normal_text(other.text):
        return bool(one.text)
    if not (one.kind == other.kind == "text"):
        return False
    a, b = content_words(one.text), content_words(other.text)
    return number_words(a) == number_words(b) and 2 * len(a & b) >= len(a | b) > 0
