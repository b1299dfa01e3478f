"""Which row an example's id names, without holding the ids."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np

from optaware.records import Example

__all__ = ["RowIndex"]


class RowIndex:
    """Row numbers by example id, in sixteen bytes a row: sorted 64-bit hashes, and the row each belongs to.

    Args:
        examples: The rows; a lazy sequence is read once here, and one row for each look-up.
    """

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples
        hashes = np.fromiter((_hash(example.id) for example in examples), dtype=np.uint64, count=len(examples))
        self._rows = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._rows]

    @property
    def has_repeats(self) -> bool:
        """Whether two rows have the same id."""
        same = np.flatnonzero(self._hashes[1:] == self._hashes[:-1])
        return any(self._examples[int(self._rows[n])].id == self._examples[int(self._rows[n + 1])].id for n in same)

    def find(self, name: str) -> int | None:
        """The row whose id is `name`."""
        wanted = np.uint64(_hash(name))
        at = int(np.searchsorted(self._hashes, wanted))
        while at < len(self._hashes) and self._hashes[at] == wanted:
            row = int(self._rows[at])
            if self._examples[row].id == name:
                return row
            at += 1
        return None


def _hash(name: str) -> int:
    return int.from_bytes(blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
