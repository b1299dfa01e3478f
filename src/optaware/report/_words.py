from __future__ import annotations

import difflib
import math
import re
from typing import Literal

__all__ = [
    "Part",
    "duration",
    "energy",
    "memory",
    "number",
    "p_value",
    "percent",
    "points",
    "reason_words",
    "rough",
    "short_reason",
    "span",
    "word_diff",
]

_MINUS = "−"
Part = tuple[Literal["same", "gone", "new"], str]


def percent(share: float, digits: int = 1) -> str:
    """A share as percent, without the sign: 0.7532 → `75.3`."""
    return f"{share * 100:.{digits}f}".replace("-", _MINUS)


def points(difference: float) -> str:
    """A difference of shares in points, signed: −0.012 → `−1.2`."""
    text = f"{difference * 100:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", _MINUS)


def span(low: float, high: float) -> str:
    """Bounds of a difference in points: `−0.8 to +3.1`."""
    return f"{points(low)} to {points(high)}"


def p_value(value: float | None) -> str:
    """A p-value with as many digits as can matter."""
    if value is None:
        return "–"
    if value < 0.001:
        return "< 0.001"
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}"


def number(value: float | None, digits: int = 3) -> str:
    """A number for people: integers with thin spaces, others with `digits` significant digits."""
    if value is None or not math.isfinite(value):
        return "–"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}".replace(",", "\u202f").replace("-", _MINUS)
    return f"{value:.{digits}g}".replace("-", _MINUS)


def rough(value: int | None) -> str:
    """A count that is an estimate, with two significant digits."""
    return "–" if value is None else number(round(value, 2 - len(str(value))))


def memory(size: int) -> str:
    """Bytes in binary units."""
    amount = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024 or unit == "GiB":
            return f"{amount:.0f} {unit}" if unit in ("B", "KiB", "MiB") else f"{amount:.1f} {unit}"
        amount /= 1024
    raise AssertionError("unreachable")


def duration(seconds: float | None) -> str:
    """Seconds in the units that a person would use."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, left = divmod(round(seconds), 60)
    hours, minutes_left = divmod(minutes, 60)
    return f"{hours} h {minutes_left} min" if hours else f"{minutes} min {left} s"


def energy(joules: float | None) -> str:
    """Energy in watt-hours or kilowatt-hours (1 Wh = 3600 J); `unknown` where it is."""
    if joules is None:
        return "unknown"
    hours = joules / 3600
    return f"{hours / 1000:.3g} kWh" if hours >= 1000 else f"{hours:.3g} Wh"


def short_reason(text: str, limit: int = 300) -> str:
    """One line that says why: the last of a traceback, else the first."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    if not lines:
        return ""
    line = lines[-1] if lines[0].startswith("Traceback") else lines[0]
    return line if len(line) <= limit else line[: limit - 1] + "…"


_JUDGE = re.compile(r"^judge:(\w+?)(-abstained|-unparsed|-missing|-call:.*)?$")


def reason_words(code: str) -> str:
    """A gate's reason for people: `judge:meaning` → `judge: meaning not the same`; other text stays as it is."""
    if found := _JUDGE.match(code):
        question, how = found.groups()
        if how is None:
            return f"judge: {question} not the same"
        if how.startswith("-call:"):
            return f"judge on {question}: call failed, {how.removeprefix('-call:')}"
        said = {"-abstained": "gave no decision", "-unparsed": "reply not understood", "-missing": "no reply"}[how]
        return f"judge on {question}: {said}"
    kind, colon, rest = code.partition(":")
    return f"{kind}: {rest.replace('-', ' ')}" if colon and kind in ("check", "call", "reply") else code


_MOST_PAIRS = 4_000_000
"""Longer texts are shown unmarked: the comparison takes time that grows with the product of their lengths."""
_TOKENS = re.compile(r"\s+|\w+(?:['’]\w+)*|[^\w\s]")


def word_diff(before: str, after: str) -> tuple[list[Part], list[Part]]:
    """Mark what differs, word by word: the parts of `before` (same, gone) and of `after` (same, new)."""
    left, right = _TOKENS.findall(before), _TOKENS.findall(after)
    if len(left) * len(right) > _MOST_PAIRS:
        return [("same", before)], [("same", after)]
    old: list[Part] = []
    new: list[Part] = []
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    for tag, a, b, c, d in matcher.get_opcodes():
        if tag == "equal":
            old.append(("same", "".join(left[a:b])))
            new.append(("same", "".join(right[c:d])))
            continue
        if b > a:
            old.append(("gone", "".join(left[a:b])))
        if d > c:
            new.append(("new", "".join(right[c:d])))
    return _joined(old), _joined(new)


def _joined(parts: list[Part]) -> list[Part]:
    """Close gaps of white space between two marked parts, so that a changed phrase is one mark."""
    out: list[Part] = []
    for index, (kind, text) in enumerate(parts):
        between = kind == "same" and text.isspace() and 0 < index < len(parts) - 1
        kind = out[-1][0] if between and out[-1][0] == parts[index + 1][0] else kind
        if out and out[-1][0] == kind:
            out[-1] = (kind, out[-1][1] + text)
        else:
            out.append((kind, text))
    return out
