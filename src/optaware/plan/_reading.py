from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optaware.plan._number import read_number
from optaware.plan._surface import Part, Surface, phrase_score
from optaware.plan._value_words import is_baseline_word, is_removal
from optaware.plan._words import content_words, normal_text
from optaware.records import PlanValue

__all__ = ["REMOVED", "Reading", "read_removal", "read_value"]

REMOVED = "removed"
_TRUE = frozenset(["true", "on", "yes", "enabled", "with", "used"])
_FALSE = frozenset(["false", "off", "no", "disabled", "without", "not used"])
_BRACKET = re.compile(r"^(?P<before>[^()\[\]]+?)\s*[(\[](?P<inner>[^()\[\]]*=[^()\[\]]*)[)\]]\s*$")


@dataclass(frozen=True)
class Reading:
    """What a plan's value means as configuration.

    Attributes:
        label: The value as the plan writes it.
        changes: Values by component; empty for the baseline.
        strong: It names a value of the component, so that it is evidence for the component too.
        how: What was recognised, in words.
        why_not: Why it means nothing here; then there are no changes.
    """

    label: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    is_baseline: bool = False
    strong: bool = False
    how: str = ""
    why_not: str | None = None


def read_removal(part: Part, label: str = REMOVED) -> Reading:
    """Taking a component away."""
    if not part.removable and part.baseline is not None:
        return Reading(label, why_not=f"taking {part.name} away has no meaning: it always has some value")
    if not part.removable or (part.remove == part.baseline and type(part.remove) is type(part.baseline)):
        return Reading(label, why_not=f"the baseline is without it already ({part.name} = {_said(part.baseline)})")
    return Reading(label, {part.name: part.remove}, how=f"removal means {part.name} = {_said(part.remove)}")


def read_value(value: PlanValue, part: Part, surface: Surface, context: str) -> Reading:
    """Read one value of an entry as a value of a component; ranges are checked against the whole configuration.

    Args:
        value: The plan's value.
        part: The component that the entry is about.
        surface: All components: a dict or `k=v` may set several at once.
        context: The entry's own words, which may stand beside the value without meaning more.
    """
    label = " ".join(value.text.split()) or "an empty value"
    if value.kind in ("pair", "dict") and isinstance(value.value, dict):
        return _joint(label, value.value, part, surface, context)
    names = {normal_text(name) for _, names in part.choices for name in names}
    if is_removal(value) and normal_text(value.text) not in names and part.kind != "bool":
        taken = read_removal(part, label)
        without = taken.why_not is not None and (part.removable or part.baseline is None)
        return Reading(label, is_baseline=True, how=taken.why_not or "") if without else _settled(taken, part, surface)
    if value.kind == "text" and (found := _BRACKET.match(value.text)):
        pairs = PlanValue.read(found["inner"].strip())
        if pairs.kind == "pair":
            main = read_value(PlanValue.read(found["before"]), part, surface, context)
            return _with_pairs(label, main, pairs.value, part, surface, context)
    return _settled(_single(label, value, part, context), part, surface)


def _settled(reading: Reading, part: Part, surface: Surface) -> Reading:
    """The reading with its value in the field's own type, or why the method refuses it; the baseline is marked."""
    if reading.why_not is not None or reading.is_baseline:
        return reading
    changes, why_not = surface.settle(reading.changes)
    if why_not is not None:
        return Reading(reading.label, why_not=why_not)
    if all(changes[name] == surface.baseline_of(name) for name in changes):
        return Reading(reading.label, is_baseline=True, strong=reading.strong, how=f"{reading.how}, as in the baseline")
    return Reading(reading.label, changes, strong=reading.strong, how=reading.how)


def _single(label: str, value: PlanValue, part: Part, context: str) -> Reading:
    if part.choices and (found := _choice(value.text, part, context)) is not None:
        if isinstance(found, str):
            return Reading(label, why_not=found)
        chosen, name = found
        how = f"{name!r} is a name of {part.name} = {_said(chosen)}"
        return Reading(label, {part.name: chosen}, strong=True, how=how)
    read = _number(label, value, part, context) if part.kind in ("integer", "number") else None
    if read is not None and read.why_not is None:
        return read
    if value.kind == "text" and is_baseline_word(value.text):
        return Reading(label, is_baseline=True, how="said to be the baseline")
    if read is not None:
        return read
    if part.kind == "choice":
        listed = ", ".join(_said(choice) for choice, _ in part.choices)
        return Reading(label, why_not=f"it is none of the values of {part.name}: {listed}")
    if part.kind == "bool":
        return _bool(label, value, part, context)
    if part.kind == "text":
        return Reading(label, {part.name: value.text}, how="taken as written")
    return Reading(label, why_not=f"{part.name} is a structure that words cannot say")


def _choice(text: str, part: Part, context: str) -> tuple[Any, str] | str | None:
    """The choice that a text names and the name that it used; why it is not clear; None when it names none."""
    known = content_words(" ".join((*part.phrases, context)))
    scored = [(_fit(text, name, known), choice, name) for choice, names in part.choices for name in names]
    best = max((score for score, _, _ in scored), default=0.0)
    if best < 1.0:
        return None
    found = {repr(choice): (choice, name) for score, choice, name in scored if score == best}
    if len(found) > 1:
        return f"it may be {' or '.join(_said(choice) for choice, _ in found.values())}"
    return next(iter(found.values()))


def _fit(text: str, name: str, known: frozenset[str]) -> float:
    """How well a text is a choice's name: 3 the same, 2 the same words, 1 more or fewer words that say nothing else."""
    if normal_text(text) == normal_text(name):
        return 3.0
    wanted, given = content_words(name), content_words(text)
    if wanted == given:
        return 2.0
    if wanted < given and given - wanted <= known:
        return 1.0 + len(wanted) / 100
    if given and given < wanted and wanted - given <= known:
        return 1.0 + len(given) / 100
    return 0.0


def _bool(label: str, value: PlanValue, part: Part, context: str) -> Reading:
    if value.kind == "bool":
        return Reading(label, {part.name: value.value}, how="as written")
    words = normal_text(value.text)
    for wanted, said in ((True, _TRUE), (False, _FALSE)):
        if words in said:
            return Reading(label, {part.name: wanted}, strong=True, how=f"{value.text!r} is {str(wanted).lower()}")
    if is_removal(value):
        return Reading(label, {part.name: False}, strong=True, how="it takes the part away")
    rest = content_words(re.sub(r"^(?:with|use|using|add|enable)\b", "", words))
    if rest and rest <= content_words(" ".join((*part.phrases, context))):
        return Reading(label, {part.name: True}, strong=True, how="it names the part itself")
    return Reading(label, why_not=f"{part.name} is on or off")


def _number(label: str, value: PlanValue, part: Part, context: str) -> Reading:
    found = read_number(value, content_words(" ".join((*part.phrases, context))))
    if isinstance(found, str):
        return Reading(label, why_not=found)
    number, how = found.value, "as written"
    if found.percent:
        if not part.share:
            return Reading(label, why_not=f"a percentage of what? {part.name} is no share of something")
        number, how = float(f"{number!r}e-2") if "e" not in repr(number) else number / 100, "a percentage of a share"
    if found.relative:
        if isinstance(part.baseline, bool) or not isinstance(part.baseline, int | float):
            return Reading(label, why_not=f"it multiplies the baseline, which has no number at {part.name}")
        number, how = number * part.baseline, f"{number:g} × the baseline {part.baseline}"
    if part.kind == "integer":
        if number != int(number):
            return Reading(label, why_not=f"{part.name} is a whole number")
        return Reading(label, {part.name: int(number)}, how=how)
    return Reading(label, {part.name: number}, how=how)


def _joint(label: str, pairs: Mapping[str, Any], part: Part, surface: Surface, context: str) -> Reading:
    """Several components set together; a single `k=v` whose key is no component is about the entry's own."""
    changes: dict[str, Any] = {}
    hows, baselines = [], 0
    for key, given in pairs.items():
        about = _named(key, surface, part)
        if about is None:
            return Reading(label, why_not=f"no component is called {key!r}")
        value = given if isinstance(given, PlanValue) else PlanValue.read(str(given))
        read = read_value(value, about, surface, context)
        if read.why_not is not None:
            return Reading(label, why_not=f"{key}: {read.why_not}")
        baselines += read.is_baseline
        if set(read.changes) & set(changes):
            return Reading(label, why_not=f"{key} is set twice")
        changes |= read.changes
        hows.append(f"{key} is {about.name}")
    if baselines == len(pairs):
        return Reading(label, is_baseline=True, how=", ".join(hows))
    settled, why_not = surface.settle(changes)
    return Reading(label, settled, strong=True, how=", ".join(hows)) if not why_not else Reading(label, why_not=why_not)


def _with_pairs(
    label: str, main: Reading, pairs: Mapping[str, Any], part: Part, surface: Surface, context: str
) -> Reading:
    """`LoRA (r=16)`: the value, and settings of components that go with it, whose names hold the value's words."""
    if main.why_not is not None:
        return Reading(label, why_not=main.why_not)
    own = content_words(" ".join(str(value) for value in main.changes.values())) | content_words(main.label)
    near = [other for other in surface.parts.values() if own & content_words(" ".join(other.phrases)) and other != part]
    changes = dict(main.changes)
    for key, given in pairs.items():
        fits = [other for other in near if _initial(key, other, own)]
        about = fits[0] if len(fits) == 1 else (None if fits else _named(key, surface, part))
        if about is None:
            return Reading(label, why_not=f"it is not clear which component {key!r} is")
        read = read_value(PlanValue.read(str(given)), about, surface, context)
        if read.why_not is not None:
            return Reading(label, why_not=f"{key}: {read.why_not}")
        changes |= read.changes
    if not changes:
        return Reading(label, is_baseline=True, strong=main.strong, how=main.how)
    settled, why_not = surface.settle(changes)
    return Reading(label, settled, strong=True, how=main.how) if not why_not else Reading(label, why_not=why_not)


def _initial(key: str, part: Part, own: frozenset[str]) -> bool:
    """Whether a short key (`r`, `alpha`) stands for a component once the words of the value itself are taken off."""
    wanted = normal_text(key)
    words = [word for phrase in part.phrases for word in normal_text(phrase).split() if not content_words(word) <= own]
    return any(word == wanted or (len(wanted) == 1 and word.startswith(wanted)) for word in words)


def _named(key: str, surface: Surface, part: Part) -> Part | None:
    """The component that a key names: surely, alone, and the entry's own before others."""
    if phrase_score(key, part.phrases)[0] >= 2.0:
        return part
    scores = {name: phrase_score(key, other.phrases)[0] for name, other in surface.parts.items()}
    best = max(scores.values(), default=0.0)
    fits = [name for name, score in scores.items() if score == best]
    return surface.parts[fits[0]] if best >= 2.0 and len(fits) == 1 else None


def _said(value: Any) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
