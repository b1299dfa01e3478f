"""Prefixes that stay in memory between calls of `generate`, for a model whose weights do not change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optaware.models._prefix import common_prefix
from optaware.models._shared_attention import Prefix

__all__ = ["KeptPrefixes"]

_WORTH = 32
_BYTES = 1 << 28


@dataclass(frozen=True)
class _Kept:
    tokens: tuple[int, ...]
    prefix: Prefix

    @property
    def bytes(self) -> int:
        return sum(tensor.nbytes for pair in self.prefix for tensor in pair)


class KeptPrefixes:
    """Keys and values of the prompts' beginnings that were computed last; the one used longest ago goes first.

    A judge's instructions and examples are the same in every trial and corpus of a task, and calls that follow each
    other would compute them anew. What is kept belongs to one model with the weights that it had: never share an
    object between models, and never use it while a model is trained.

    Args:
        most_bytes: Memory for keys and values together (default 256 MiB). One prefix above it is not kept.
    """

    def __init__(self, most_bytes: int = _BYTES) -> None:
        self._most = most_bytes
        self._kept: list[_Kept] = []

    @property
    def tokens(self) -> int:
        """Tokens that are kept, of all prefixes together."""
        return sum(len(kept.tokens) for kept in self._kept)

    def find(self, tokens: Sequence[int]) -> tuple[int, Prefix | None]:
        """The longest kept beginning of `tokens`: how many of them, and their keys and values.

        Beginnings of fewer than 32 tokens are not worth a second pass through the model: then `(0, None)`.
        """
        best, length = None, 0
        for kept in self._kept:
            if (own := common_prefix(kept.tokens, tokens)) > length:
                best, length = kept, own
        if best is None or length < _WORTH:
            return 0, None
        self._kept.remove(best)
        self._kept.append(best)
        return length, [(keys[:, :, :length], values[:, :, :length]) for keys, values in best.prefix]

    def keep(self, tokens: Sequence[int], prefix: Prefix) -> None:
        """Keep the keys and values of `tokens`; what is a beginning of them is given up, for they hold it."""
        new = _Kept(tuple(tokens), prefix)
        if new.bytes > self._most or any(kept.tokens[: len(new.tokens)] == new.tokens for kept in self._kept):
            return
        self._kept = [kept for kept in self._kept if new.tokens[: len(kept.tokens)] != kept.tokens]
        self._kept.append(new)
        while sum(kept.bytes for kept in self._kept) > self._most:
            del self._kept[0]
