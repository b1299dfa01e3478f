from __future__ import annotations

import re
from dataclasses import dataclass

from optaware.plan._words import content_words, normal_text
from optaware.records import PlanValue

__all__ = ["Number", "read_number"]

_SUPER = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SUPERSCRIPT = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+")
_REAL = r"[-+]?(?:[0-9]{1,15}(?:,[0-9]{3})*(?:\.[0-9]{1,15})?|\.[0-9]{1,15})(?:[eE][-+]?[0-9]{1,3})?"
_POWER = re.compile(
    rf"(?:(?P<factor>{_REAL})\s*[×x*·]\s*)?10\s*\^\s*[{{(]?\s*(?P<power>[-+−–]?\s*[0-9]{{1,3}})\s*[)}}]?"
)
_FRACTION = re.compile(r"(?P<over>[0-9]{1,9})\s*/\s*(?P<under>[1-9][0-9]{0,8})")
_TIMES = re.compile(rf"(?:×|x)\s*(?P<after>{_REAL})|(?P<before>{_REAL})\s*(?:×|x|times)(?:\s+(?P<way>\w+))?")
_PLAIN = re.compile(rf"(?P<number>{_REAL})\s*(?P<suffix>%|percent\b|k\b|K\b|M\b)?")
_SMALLER = ("smaller", "lower", "less", "fewer", "shorter")
_LARGER = ("", "larger", "higher", "more", "bigger", "longer", "the", "default", "baseline")
_RELATIVE = {"half": 0.5, "halved": 0.5, "double": 2.0, "doubled": 2.0, "twice": 2.0, "quarter": 0.25, "tenfold": 10.0}
_NAMES = "zero one two three four five six seven eight nine ten eleven twelve"
_COUNTS = dict(zip(_NAMES.split(), range(13), strict=True)) | {"sixteen": 16, "hundred": 100, "single": 1}
# Words that count the thing, or say how a number is meant, and change nothing about it.
_UNITS = content_words(
    "step steps sample query seed layer token epoch row example time iteration point per default baseline original "
    "ours paper proposed current"
)


@dataclass(frozen=True)
class Number:
    """What a text says in numbers.

    Attributes:
        value: The number; for a percentage the number before the sign.
        percent: It was written as a percentage.
        relative: It multiplies the baseline.
    """

    value: float
    percent: bool = False
    relative: bool = False


def read_number(value: PlanValue, allowed: frozenset[str]) -> Number | str:
    """The one number that a plan's value says, or why it says none.

    Understood: `8`, `1e-3`, `10^-3`, `2 × 10⁻⁴`, `1/4`, `5%`, `5 percent`, `10k`, `four`, `2x`, `10x smaller`, `half`;
    with words around it only if they are units or name the component (`allowed`, word stems): `4 samples`, `rank 8`.
    """
    if value.kind in ("integer", "number"):
        return Number(float(value.value))
    if value.kind == "percent":
        return Number(float(value.value), percent=True)
    if value.kind != "text":
        return f"a {value.kind} is no number"
    text = _SUPERSCRIPT.sub(lambda run: "^" + run[0].translate(_SUPER), value.text).replace("−", "-").strip()
    text = re.sub(r"^[≈~=∼]\s*", "", text)
    for pattern, make in ((_POWER, _power), (_FRACTION, _fraction), (_TIMES, _times), (_PLAIN, _plain)):
        found = list(pattern.finditer(text))
        if not found:
            continue
        if len(found) > 1:
            return "it holds more than one number"
        made = make(found[0])
        rest = f"{text[: found[0].start()]} {text[found[0].end() :]}"
        return made if isinstance(made, str) else _explained(rest, made, allowed)
    words = normal_text(text)
    for told, relative in ((_RELATIVE, True), (_COUNTS, False)):
        for name, number in sorted(told.items(), key=lambda item: -len(item[0])):
            if re.search(rf"\b{name}\b", words):
                rest = re.sub(rf"\b{name}\b", " ", words, count=1)
                return _explained(rest, Number(float(number), relative=relative), allowed)
    return "it holds no number"


def _explained(rest: str, number: Number, allowed: frozenset[str]) -> Number | str:
    """The number, unless words beside it say something that it does not."""
    if re.search(r"[<>≤≥±]|\bto\b|\bnot?\b|[0-9]", rest):
        return "it is a range, a bound or a denial"
    words = re.findall(r"[^\W_]+", rest)
    if not words:
        return number
    strange = content_words(rest) - allowed - _UNITS
    strange = frozenset(word for word in strange if len(word) > 1)
    return number if not strange else f"its words {', '.join(sorted(strange))} say more than a number"


def _power(found: re.Match[str]) -> Number | str:
    factor = float((found["factor"] or "1").replace(",", ""))
    exponent = int(found["power"].replace("–", "-").replace(" ", ""))
    return Number(float(f"{factor!r}e{exponent}") if "e" not in repr(factor) else factor * 10.0**exponent)


def _fraction(found: re.Match[str]) -> Number | str:
    return Number(int(found["over"]) / int(found["under"]))


def _times(found: re.Match[str]) -> Number | str:
    factor, way = float((found["after"] or found["before"]).replace(",", "")), (found["way"] or "").lower()
    if way in _SMALLER and factor:
        return Number(1 / factor, relative=True)
    return Number(factor, relative=True) if way in _LARGER else f"{found[0]!r} is not clear"


def _plain(found: re.Match[str]) -> Number | str:
    number = float(found["number"].replace(",", ""))
    suffix = found["suffix"] or ""
    return Number(number * {"k": 1e3, "K": 1e3, "M": 1e6}.get(suffix, 1.0), percent=suffix in ("%", "percent"))
