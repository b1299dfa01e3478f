"""Which rows each step sees: a function of seed and step only, so that arms of a study are paired."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TypeVar

import torch

from optaware.train._seeds import derive_seed, generator

__all__ = ["BatchOrder", "split"]

T = TypeVar("T")


class BatchOrder:
    """Row indices of each batch, from one permutation per epoch.

    The permutations are joined end to end and cut into batches of equal size, so a batch may hold the end of one epoch
    and the beginning of the next. Every row is seen once per epoch.

    Args:
        rows: Number of training rows, at least 1.
        batch_size: Rows per batch.
        seed: The run's seed; the method has no part in the order.
    """

    def __init__(self, rows: int, batch_size: int, seed: int) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self._epoch = lru_cache(maxsize=2)(
            lambda epoch: torch.randperm(rows, generator=generator(derive_seed(seed, "order", epoch))).tolist()
        )

    def batch(self, step: int) -> list[int]:
        """Row indices of the batch of update `step` (from 1)."""
        start = (step - 1) * self.batch_size
        return [self._epoch(at // self.rows)[at % self.rows] for at in range(start, start + self.batch_size)]


def split(batch: Sequence[T], parts: int) -> list[Sequence[T]]:
    """Cut a batch into `parts` pieces whose sizes differ by at most one, in order, without empty ones."""
    size, extra = divmod(len(batch), parts)
    pieces, start = [], 0
    for index in range(parts):
        end = start + size + (index < extra)
        if end > start:
            pieces.append(batch[start:end])
        start = end
    return pieces
