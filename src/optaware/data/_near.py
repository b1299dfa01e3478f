"""Near-duplicates of rows that are kept for development and test: MinHash to find them, Jaccard to be sure."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from optaware._io import text_sha256
from optaware.records import Example
from optaware.tasks import Task

__all__ = ["NEAR", "HeldOut", "similarity"]

NEAR = 0.8
"""Jaccard similarity from which two texts count as near-duplicates."""

_SHINGLE = 5
_BANDS, _ROWS = 20, 4


def _shingles(text: str) -> frozenset[str]:
    """Runs of five characters of the text in lower case, with everything between words as one space."""
    plain = unicodedata.normalize("NFKC", text).casefold()
    plain = " ".join("".join(char if char.isalnum() else " " for char in plain).split())
    return frozenset(plain[at : at + _SHINGLE] for at in range(max(1, len(plain) - _SHINGLE + 1)))


def similarity(a: str, b: str) -> float:
    """`J(A, B) = |A ∩ B| / |A ∪ B|` of two texts' runs of five characters; 1 for the same words in the same order."""
    left, right = _shingles(a), _shingles(b)
    return len(left & right) / len(left | right)


class HeldOut:
    """Texts that nothing may come near, indexed so that a look-up does not compare with all of them.

    Each text has a MinHash signature of 80 values, cut into 20 bands of 4; two texts are compared when one band agrees.
    Texts of similarity s meet with probability `1 − (1 − s⁴)²⁰`: 0.99997 at 0.8, 0.71 at 0.5, 0.03 at 0.2. What meets
    is compared exactly. The hash functions are fixed, so the same texts always give the same answer.

    Source: Broder, On the resemblance and containment of documents (1997); banding, Leskovec, Rajaraman and Ullman,
    Mining of Massive Datasets, chapter 3.

    Args:
        texts: The held-out texts; they are kept.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = list(dict.fromkeys(texts))
        draw = np.random.default_rng(20250624)
        # Multiply–shift hashing: the high bits of an odd multiple are as good as random, and 64 bits may wrap.
        self._a = (draw.integers(0, 1 << 63, _BANDS * _ROWS, dtype=np.uint64) * np.uint64(2) + np.uint64(1))[:, None]
        self._b = draw.integers(0, 1 << 63, _BANDS * _ROWS, dtype=np.uint64)[:, None]

    @cached_property
    def _buckets(self) -> dict[tuple[int, bytes], list[int]]:
        found: defaultdict[tuple[int, bytes], list[int]] = defaultdict(list)
        for number, text in enumerate(self._texts):
            for band in self._bands(text):
                found[band].append(number)
        return dict(found)

    @classmethod
    def of(cls, task: Task, rows: Sequence[Example]) -> HeldOut:
        """The spans of dev and test rows."""
        return cls(task.span_text(row) for row in rows)

    @property
    def sha256(self) -> str:
        """Hash over the texts, whatever their order."""
        return text_sha256("\n".join(sorted(text_sha256(text) for text in self._texts)))

    def __len__(self) -> int:
        return len(self._texts)

    def _bands(self, text: str) -> list[tuple[int, bytes]]:
        values = self._signature(text)
        return [(band, values[band * _ROWS : (band + 1) * _ROWS].tobytes()) for band in range(_BANDS)]

    def _signature(self, text: str) -> NDArray[np.uint64]:
        hashes = [
            int.from_bytes(blake2b(each.encode("utf-8", "surrogatepass"), digest_size=4).digest(), "little")
            for each in _shingles(text)
        ]
        values = np.array(hashes, dtype=np.uint64)
        mixed = (self._a * values[None, :] + self._b) >> np.uint64(32)
        return np.asarray(mixed.min(axis=1), dtype=np.uint64)

    def nearest(self, text: str, at_least: float = NEAR) -> tuple[float, str] | None:
        """The most similar held-out text and its similarity, when that is `at_least` or more."""
        numbers = {number for band in self._bands(text) for number in self._buckets.get(band, ())}
        found = [(similarity(text, self._texts[number]), self._texts[number]) for number in sorted(numbers)]
        best = max(found, key=lambda item: item[0], default=None)
        return best if best is not None and best[0] >= at_least else None
