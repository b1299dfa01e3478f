from __future__ import annotations

import ast
import json
import math
import re
import warnings
from collections import Counter
from dataclasses import dataclass
from typing import Any

from optaware.plan._notes import Notes

__all__ = ["Brackets", "NumberText", "clean", "loads", "loads_mended", "plain"]

MAX_DEPTH = 40
_LITERAL_CHARS = 20_000
_TOKEN = re.compile(r'["\\{}\[\],\n]')
_UNUSABLE = re.compile(r"[\x00\ud800-\udfff]")


@dataclass(frozen=True)
class NumberText:
    """A JSON number as it was written: `1e-3` is not turned into `0.001`."""

    text: str


class _KeyTwice(ValueError):
    """An object gives a key twice; which one is meant cannot be known."""


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise _KeyTwice(f"the key {twice!r} is given twice")
    return made


def loads(text: str) -> Any:
    """`json.loads` that keeps the text of numbers.

    Raises:
        ValueError: Malformed, or nested too deep.
    """
    try:
        return json.loads(
            text,
            parse_float=NumberText,
            parse_int=NumberText,
            parse_constant=_refuse,
            object_pairs_hook=_object,
        )
    except RecursionError as error:
        raise ValueError("brackets nested too deep") from error


def plain(value: Any, depth: int = 0) -> Any:
    """A value from `loads` as ordinary Python values.

    Raises:
        ValueError: Nested too deep, or a number that does not fit.
    """
    if depth > MAX_DEPTH:
        raise ValueError("brackets nested too deep")
    if isinstance(value, NumberText):
        number = float(value.text)
        if not math.isfinite(number) or len(value.text) > 300:
            raise ValueError(f"the number {value.text[:40]} is too large")
        return int(value.text) if re.fullmatch(r"-?[0-9]+", value.text) else number
    if isinstance(value, list):
        return [plain(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {key: plain(item, depth + 1) for key, item in value.items()}
    return value


def loads_mended(text: str, notes: Notes) -> Any:
    """A JSON value from text that a model wrote: trailing commas and Python spelling are mended and recorded.

    Raises:
        ValueError: It is not understood.
    """
    value = _loads_mended(text, notes)
    try:
        return clean(value, notes)
    except RecursionError as error:
        raise ValueError("brackets nested too deep") from error


def _loads_mended(text: str, notes: Notes) -> Any:
    try:
        return loads(text)
    except _KeyTwice:
        raise
    except ValueError as error:
        first = error
    without = _without_trailing_commas(text)
    if without != text:
        try:
            value = loads(without)
        except _KeyTwice:
            raise
        except ValueError:
            pass
        else:
            notes.repaired("trailing-comma", text, without)
            return value
    value = _python(text)
    if value is None:
        raise first
    notes.repaired("python-literal", text, json.dumps(value, ensure_ascii=True))
    return loads(json.dumps(value, allow_nan=False))


def _python(text: str) -> Any:
    if len(text) > _LITERAL_CHARS:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = ast.literal_eval(text.strip())
        json.dumps(value, allow_nan=False)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None


def _without_trailing_commas(text: str) -> str:
    """The text without commas that stand before a closing bracket or at the end; text inside strings is left alone."""
    drop: list[int] = []
    inside = False
    comma = skip = -1
    for match in _TOKEN.finditer(text):
        at, char = match.start(), match[0]
        if at == skip:
            continue
        if inside:
            if char == "\\":
                skip = at + 1
            elif char == '"':
                inside = False
        elif char == '"':
            inside, comma = True, -1
        elif char == ",":
            comma = at
        elif char != "\n":
            if char in "}]" and comma >= 0 and not text[comma + 1 : at].strip():
                drop.append(comma)
            comma = -1
    if not inside and comma >= 0 and not text[comma + 1 :].strip():
        drop.append(comma)
    pieces, start = [], 0
    for at in drop:
        pieces.append(text[start:at])
        start = at + 1
    return "".join([*pieces, text[start:]])


def clean(value: Any, notes: Notes) -> Any:
    """Escapes can name what no text file holds: NUL and lone surrogates become U+FFFD; line ends become LF."""
    if isinstance(value, str):
        usable = _UNUSABLE.sub("\ufffd", value).replace("\r\n", "\n")
        if usable != value:
            notes.repaired("unusable-character", ascii(value), usable)
        return usable
    if isinstance(value, list):
        return [clean(item, notes) for item in value]
    if isinstance(value, dict):
        return {clean(key, notes): clean(item, notes) for key, item in value.items()}
    return value


@dataclass
class Brackets:
    """Follows brackets and strings over pieces of JSON text: `depth` is how many are open."""

    depth: int = 0
    inside: bool = False

    def read(self, text: str) -> int | None:
        """Go on with `text`; the index just after the bracket that closes all, or None."""
        skip = -1
        for match in _TOKEN.finditer(text):
            at, char = match.start(), match[0]
            if at == skip:
                continue
            if char == "\n":
                self.inside = False  # JSON strings end with their line; a lost quote must not swallow the rest
            elif self.inside:
                if char == "\\":
                    skip = at + 1
                elif char == '"':
                    self.inside = False
            elif char == '"':
                self.inside = True
            elif char in "{[":
                self.depth += 1
            elif char in "}]":
                self.depth -= 1
                if self.depth <= 0:
                    return match.end()
        self.inside = False
        return None
