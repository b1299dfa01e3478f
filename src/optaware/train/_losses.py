"""The loss of one step's batch, whatever parts the batch comes in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from optaware.train._room import Room
from optaware.train._types import Loss

if TYPE_CHECKING:
    from optaware.models import EncodedExample

__all__ = ["BatchLoss"]


class BatchLoss:
    """Mean loss over a batch given in parts, of the model as it computes at the moment of the call.

    Args:
        loss: The objective. `Objective`s may pool their parts or tell copies of a batch apart; of any other callable
            the mean of the parts, weighted by their sizes, is taken.
        parts: The batch.
        most_copies: Copies of the batch that may go through the model at once; 1 where the loss cannot tell them apart.
        room: How many rows have room at once; where that turns out to be too many, it is made smaller.
    """

    def __init__(
        self,
        loss: Loss,
        parts: Sequence[Sequence[EncodedExample]],
        most_copies: int = 1,
        room: Room | None = None,
    ) -> None:
        self.loss, self.parts = loss, parts
        self.room = room or Room()
        self.most_copies = most_copies if getattr(loss, "can_copy", False) else 1
        self._size = sum(len(part) for part in parts)

    def __call__(self) -> float:
        """The loss."""
        return self.room.within(self.parts, self._mean)

    def _mean(self, parts: Sequence[Sequence[EncodedExample]]) -> float:
        pooled = getattr(self.loss, "pooled", None)
        if pooled is not None:
            return float(pooled(parts))
        return sum(float(self.loss(part)) * len(part) / self._size for part in parts)

    def copies(self, count: int) -> list[float]:
        """The loss of each of `count` copies of the batch, which the model computes in different ways."""

        def means(parts: Sequence[Sequence[EncodedExample]]) -> list[float]:
            totals = [0.0] * count
            for part in parts:
                each = self.loss.copies(part, count).tolist()  # type: ignore[attr-defined]
                totals = [total + value * len(part) / self._size for total, value in zip(totals, each, strict=True)]
            return totals

        return self.room.within(self.parts, means)
