"""What all updates share: which directions count, clipping, decay."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import Tensor

from optaware.train._types import Probe
from optaware.train.directions import Direction

__all__ = ["Rule", "Weighted", "estimate_of"]

Weighted = tuple[tuple[int, float], ...]
"""Seed and weight g_j/n of each direction of a step: `ĝ = Σ_j weight_j·z(seed_j)`."""


class Rule(ABC):
    """Base of the updates.

    Args:
        lr: Learning rate.
        weight_decay: Share of the matrices that is taken off per unit of learning rate.
        clip: Largest size of a coefficient g; None: any.
    """

    def __init__(self, lr: float, weight_decay: float = 0.0, clip: float | None = None) -> None:
        self.lr, self.weight_decay, self.clip = lr, weight_decay, clip

    def weighted(self, probe: Probe) -> Weighted:
        """The usable directions of a probe, clipped, each with its share in the mean."""
        usable = probe.usable
        limit = float("inf") if self.clip is None else self.clip
        return tuple((seed, min(max(value, -limit), limit) / len(usable)) for seed, value in usable)

    def apply(self, direction: Direction, probe: Probe, lr: float | None = None) -> bool:
        """Move the weights; returns whether there was anything to move them by."""
        lr = self.lr if lr is None else lr
        weighted = self.weighted(probe)
        if not weighted:
            return False
        if self.weight_decay:
            direction.decay(1.0 - lr * self.weight_decay)
        self._move(direction, weighted, lr)
        return True

    @abstractmethod
    def _move(self, direction: Direction, weighted: Weighted, lr: float) -> None: ...

    def bytes_per_parameter(self, direction: Direction) -> float:
        """Nothing is remembered."""
        return 0.0

    def state(self) -> dict[str, Tensor]:
        """Nothing is remembered."""
        return {}

    def load(self, state: dict[str, Tensor]) -> None:  # noqa: B027
        """Nothing to take up."""


def estimate_of(direction: Direction, weighted: Sequence[tuple[int, float]], name: str) -> Tensor:
    """`Σ_j weight_j·z(seed_j)` of one parameter, in the direction's coordinates."""
    total: Tensor | None = None
    for seed, weight in weighted:
        z = direction.coordinates(seed, name)
        total = z * weight if total is None else total.add_(z, alpha=weight)
    assert total is not None
    return total
