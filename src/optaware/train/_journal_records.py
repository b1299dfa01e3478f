"""What follows a journal's header: a record a step, and marks between the steps.

In the journal of a run (version 2) a step is its values alone, one float32 a probe, and everything else follows from
the header. An optimizer in somebody's loop is told its rates from outside, and its weights settle whenever that loop
looks at the model. Its journal (version 3) therefore has words between the values: float32 patterns that no value has
(NaNs with all sixteen upper bits set; a skipped probe is the plain NaN).

    RATES    (lr, weight decay) of each group, float64, from the next step on
    MOVES    from the next step on, each step's values are followed by the learning rate of each group, as the number of
             float64 steps from its extrapolation, zigzag, 7 bits a byte: one byte along a linear or cosine schedule
    STANDS   the learning rates stand still again
    SETTLED  all that was learnt was rounded into the stored weights here
    MOVED    the steps that follow were made on another platform than the header's
    ENDED    the optimizer was closed; 16 bytes: digest of the trained weights
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Literal

from optaware.train._journal_header import OPTIMIZER, JournalHeader, unreadable
from optaware.train.schedules import settings_at

__all__ = ["Code", "Mark", "Place", "Rates", "Record", "Step"]

Rates = tuple[tuple[float, float], ...]
"""Learning rate and weight decay of each parameter group."""

_RATES, _MOVES, _STANDS, _SETTLED, _MOVED, _ENDED = (0xFFFF0001 + number for number in range(6))
_WORD = 0xFFFF0000
_KINDS: dict[int, Literal["settled", "moved"]] = {_SETTLED: "settled", _MOVED: "moved"}
_DIGEST = 16


@dataclass(frozen=True)
class Step:
    """One update: what is kept of its probes, and the rates it was made with (empty: the method's own)."""

    kept: tuple[float, ...]
    rates: Rates = ()


@dataclass(frozen=True)
class Mark:
    """What happened between two steps; `digest` (32 hexadecimal digits) goes with `ended`."""

    kind: Literal["settled", "moved", "ended"]
    digest: str = ""


Record = Step | Mark


@dataclass(frozen=True)
class Place:
    """How far a journal was read or written, as far as the next record depends on it."""

    step: int = 0
    rates: Rates = ()
    moving: bool = False
    before: tuple[tuple[float, ...], ...] = ()
    """The last learning rates of each group since they began to move, up to four."""


class Code:
    """Records as bytes, for the journal that a header belongs to.

    Args:
        header: The header.
        path: The file, for errors.
    """

    def __init__(self, header: JournalHeader, path: Path) -> None:
        self._header, self._path = header, path
        self._told = header.version == OPTIMIZER

    @cached_property
    def _widths(self) -> _Widths:
        return _Widths(self._header)

    def encode(self, place: Place, record: Record) -> tuple[bytes, Place]:
        """The bytes of the next record, and the place after it."""
        if isinstance(record, Mark):
            word = {"settled": _SETTLED, "moved": _MOVED, "ended": _ENDED}[record.kind]
            return struct.pack("<I", word) + bytes.fromhex(record.digest), place
        values = (value if math.isfinite(value) else math.nan for value in record.kept)
        body = struct.pack(f"<{len(record.kept)}f", *values)
        place = replace(place, step=place.step + 1)
        if not self._told or (record.rates == place.rates and not place.moving):
            return body, place
        flat = [value for pair in record.rates for value in pair]
        if [decay for _, decay in record.rates] != [decay for _, decay in place.rates]:
            lead = struct.pack(f"<I{len(flat)}d", _RATES, *flat)
            return lead + body, replace(place, rates=record.rates, moving=False)
        if record.rates == place.rates:
            return struct.pack("<I", _STANDS) + body, replace(place, moving=False)
        lead = b"" if place.moving else struct.pack("<I", _MOVES)
        before = _since(place)
        moves = [_order(lr) - _order(_extrapolated(old)) for (lr, _), old in zip(record.rates, before, strict=True)]
        return lead + body + b"".join(map(_varint, moves)), _moved(place, record.rates, before)

    def decode(self, place: Place, data: bytes | bytearray, at: int) -> tuple[Record, Place, int] | None:
        """The record at `at`, the place after it and where the next one begins; None: `data` ends within it.

        Raises:
            IntegrityError: There is no such record.
        """
        while len(data) >= at + 4:
            (word,) = struct.unpack_from("<I", data, at)
            if not self._told or word < _WORD:
                return self._step(place, data, at)
            at += 4
            if word in _KINDS:
                return Mark(_KINDS[word]), place, at
            if word == _ENDED:
                end = at + _DIGEST
                return (Mark("ended", data[at:end].hex()), place, end) if len(data) >= end else None
            if word == _RATES:
                size = 16 * self._header.group_count
                if len(data) < at + size:
                    return None
                flat = struct.unpack_from(f"<{size // 8}d", data, at)
                place = replace(place, rates=tuple(zip(flat[::2], flat[1::2], strict=True)), moving=False)
                at += size
            elif word == _STANDS:
                place = replace(place, moving=False)
            elif word == _MOVES and place.rates:
                place = replace(place, moving=True, before=_since(replace(place, moving=False)))
            else:
                raise self._damaged(place)
        return None

    def _step(self, place: Place, data: bytes | bytearray, at: int) -> tuple[Record, Place, int] | None:
        if self._told and not place.rates:
            raise self._damaged(place)
        width = self._widths.at(place.step + 1)
        if len(data) < at + 4 * width:
            return None
        kept = struct.unpack_from(f"<{width}f", data, at)
        at += 4 * width
        place = replace(place, step=place.step + 1)
        if not place.moving:
            return Step(kept, place.rates), place, at
        rates = []
        for (_, decay), old in zip(place.rates, place.before, strict=True):
            found = _read_varint(data, at)
            if found is None:
                return None
            number, at = _order(_extrapolated(old)) + found[0], found[1]
            if not -_TOP <= number <= _TOP:
                raise self._damaged(place)
            rates.append((_float(number), decay))
        return Step(kept, tuple(rates)), _moved(place, tuple(rates), place.before), at

    def records(self, data: bytes | bytearray, at: int) -> Iterator[tuple[Record, Place, int]]:
        """All whole records from `at` on, each with the place and the position after it.

        Raises:
            IntegrityError: Something that is no record.
        """
        place = Place()
        while (found := self.decode(place, data, at)) is not None:
            yield found
            _, place, at = found

    def _damaged(self, place: Place) -> Exception:
        return unreadable(self._path, f"after its step {place.step} comes what is no record")


class _Widths:
    """Number of values of each step, from the method's query schedule."""

    def __init__(self, header: JournalHeader) -> None:
        self._config, self._steps = header.config, header.steps or 1
        self._constant = self._config.queries if self._config.query_schedule == "constant" else None

    def at(self, step: int) -> int:
        return self._constant or settings_at(self._config, step, self._steps).queries


def _since(place: Place) -> tuple[tuple[float, ...], ...]:
    """The learning rates to extrapolate from: those since they began to move, else the one that stood."""
    return place.before if place.moving else tuple((lr,) for lr, _ in place.rates)


def _moved(place: Place, rates: Rates, before: tuple[tuple[float, ...], ...]) -> Place:
    after = tuple((*old[-3:], lr) for (lr, _), old in zip(rates, before, strict=True))
    return replace(place, rates=rates, moving=True, before=after)


def _extrapolated(old: tuple[float, ...]) -> float:
    """The next value of the polynomial through the last ones; sums in a fixed order, so it is the same everywhere."""
    match old:
        case (a, b, c, d):
            next_ = 4.0 * d - 6.0 * c + 4.0 * b - a
        case (b, c, d):
            next_ = 3.0 * d - 3.0 * c + b
        case (c, d):
            next_ = 2.0 * d - c
        case _:
            next_ = old[-1]
    return next_ if math.isfinite(next_) else 0.0


_TOP = (1 << 63) - 1


def _order(value: float) -> int:
    """The number of a float64 in their order: neighbours differ by 1."""
    (bits,) = struct.unpack("<q", struct.pack("<d", value))
    return int(bits) if bits >= 0 else -(bits & _TOP)


def _float(number: int) -> float:
    (value,) = struct.unpack("<d", struct.pack("<Q", number if number >= 0 else (1 << 63) | -number))
    return float(value)


def _varint(number: int) -> bytes:
    left = number << 1 if number >= 0 else (-number << 1) - 1
    made = bytearray()
    while left > 127:
        made.append(left & 127 | 128)
        left >>= 7
    made.append(left)
    return bytes(made)


def _read_varint(data: bytes | bytearray, at: int) -> tuple[int, int] | None:
    """A number and where it ends; more than ten bytes are no float64 any more, which the caller finds out."""
    left = shift = 0
    while at < len(data) and shift <= 70:
        byte = data[at]
        left |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return (left >> 1 if not left & 1 else -((left + 1) >> 1)), at
    return None if shift <= 70 else (1 << 80, at)
