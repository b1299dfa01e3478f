"""Plain descent along the probed directions."""

from __future__ import annotations

from optaware.train._types import Probe
from optaware.train.directions import Direction

__all__ = ["SGD"]


class SGD:
    """`θ ← (1 − lr·weight_decay)·θ − lr · mean_j g_j·z_j`, the mean over the directions whose losses were finite.

    Decay is decoupled from the estimate and acts on matrices only, as in the code of MeZO (Malladi et al., 2023).

    Args:
        lr: Learning rate.
        weight_decay: Share of the weights that is taken off per unit of learning rate.
    """

    def __init__(self, lr: float, weight_decay: float = 0.0) -> None:
        self.lr = lr
        self.weight_decay = weight_decay

    def apply(self, direction: Direction, probe: Probe) -> bool:
        """Move the weights; returns whether there was anything to move them by."""
        usable = probe.usable
        if not usable:
            return False
        if self.weight_decay:
            direction.decay(1.0 - self.lr * self.weight_decay)
        for seed, coefficient in usable:
            direction.move(seed, -self.lr * coefficient / len(usable))
        return True
