"""Whether a GGUF file is whole, found out before a reader believes its counts.

The header says how many keys, array elements and weights follow; the reader of the `gguf` package loops that many times
also where the file has ended, so that 24 bytes keep it busy for ever. Here every length is held against what is left.
"""

from __future__ import annotations

import mmap
import struct
from math import prod
from pathlib import Path

from optaware.errors import AssetError, Problem

__all__ = ["check_gguf"]

_SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of each scalar type by its number."""
_STRING, _ARRAY = 8, 9
_MAX_DIMS = 8
_MAX_NESTED = 4
_MAX_NAME = 1024


class _Walk:
    """Reads on through the file; what does not fit into it is a fault."""

    def __init__(self, data: mmap.mmap) -> None:
        self._data, self.at = data, 0

    def skip(self, count: int) -> int:
        start = self.at
        if count > len(self._data) - start:
            raise ValueError(
                f"it ends at byte {len(self._data)}, within something of {count} bytes that begins at {start}"
            )
        self.at = start + count
        return start

    def number(self, form: str) -> int:
        start = self.skip(struct.calcsize(form))
        value: int = struct.unpack_from(form, self._data, start)[0]
        return value

    def text(self, limit: int | None = None) -> bytes:
        length = self.number("<Q")
        if limit is not None and length > limit:
            raise ValueError(f"a name of {length} bytes at byte {self.at}")
        start = self.skip(length)
        return self._data[start : self.at] if limit is not None else b""

    def value(self, kind: int, depth: int = 0) -> None:
        if size := _SCALARS.get(kind):
            self.skip(size)
        elif kind == _STRING:
            self.text()
        elif kind == _ARRAY and depth < _MAX_NESTED:
            inner, count = self.number("<I"), self.number("<Q")
            if size := _SCALARS.get(inner):
                self.skip(size * count)
                return
            for _ in range(count):  # each takes bytes, or the file ends
                self.value(inner, depth + 1)
        else:
            raise ValueError(f"a value of an unknown kind {kind} at byte {self.at}")


def check_gguf(path: Path) -> None:
    """Walk through the header of `path` and see that everything that it announces lies within the file.

    Raises:
        AssetError: It does not, or it is no GGUF file of version 2 or 3.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            _check(_Walk(data), len(data))
    except ValueError as error:
        raise AssetError(
            Problem("asset-damaged", path.name, str(error), "Delete the file and pull the asset again.", str(path))
        ) from error


def _check(walk: _Walk, total: int) -> None:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    if walk.number("<I") != 0x46554747:
        raise ValueError("it does not begin as a GGUF file does")
    if (version := walk.number("<I")) not in (2, 3):
        raise ValueError(f"its version is {version}, and only versions 2 and 3 are read")
    tensors, keys = walk.number("<Q"), walk.number("<Q")
    alignment, seen = 32, set()
    for _ in range(keys):
        key, kind = walk.text(_MAX_NAME), walk.number("<I")
        if key in seen:
            raise ValueError(f"the key {key!r} is given twice")
        seen.add(key)
        if key == b"general.alignment":
            if kind != 4:
                raise ValueError("general.alignment is no 32-bit number")
            alignment = walk.number("<I")
            if alignment == 0 or alignment & (alignment - 1):
                raise ValueError(f"general.alignment is {alignment}, which is no power of two")
            continue
        walk.value(kind)
    extents = []
    names = set()
    for _ in range(tensors):
        name, count = walk.text(_MAX_NAME), walk.number("<I")
        if not 0 < count <= _MAX_DIMS or name in names:
            raise ValueError(f"the weight {name!r} has {count} dimensions, or is given twice")
        names.add(name)
        shape = [walk.number("<Q") for _ in range(count)]
        kind, offset = walk.number("<I"), walk.number("<Q")
        try:
            block, size = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        except (ValueError, KeyError):
            raise ValueError(f"the weight {name!r} has an unknown type {kind}") from None
        if 0 in shape or shape[0] % block:
            raise ValueError(f"the weight {name!r} has a shape {shape} that its type cannot have")
        extents.append((name, offset + prod(shape) // block * size))
    start = -(-walk.at // alignment) * alignment
    for name, end in extents:
        if start + end > total:
            raise ValueError(f"the weight {name!r} ends {start + end - total} bytes behind the file")
