from __future__ import annotations

from typing import Protocol

from torch import Tensor

from optaware.train._types import Probe
from optaware.train.directions import Direction

__all__ = ["Update"]


class Update(Protocol):
    """What the coefficients of a probe do to the weights.

    All of them take the estimate `ĝ = mean_j g_j·z_j` over the directions whose losses were finite, with g_j clipped to
    `±clip` first; decay is decoupled from it, `θ ← (1 − lr·weight_decay)·θ`, and acts on matrices only. A step without
    a finite coefficient changes nothing, neither weights nor what is remembered.
    """

    lr: float
    """Learning rate, where a step is not given one of its own."""
    weight_decay: float
    """Decoupled decay of matrices, as a share of the learning rate; a parameter group may change it between steps."""

    def apply(self, direction: Direction, probe: Probe, lr: float | None = None) -> bool:
        """Move the weights; returns whether there was anything to move them by."""
        ...

    def bytes_per_parameter(self, direction: Direction) -> float:
        """Bytes that are remembered between steps, over the number of parameters moved (scalars not counted)."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What is remembered from step to step, by name."""
        ...

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up what `state()` gave."""
        ...
