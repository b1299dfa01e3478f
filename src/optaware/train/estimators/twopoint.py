"""The two-point (SPSA) estimate of the gradient along random directions."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence

from optaware.train._types import Probe
from optaware.train.directions import Direction

__all__ = ["TwoPoint", "to_float32"]


def to_float32(value: float) -> float:
    """The nearest float32, as a Python float; NaN when `value` is not finite or too large for one."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0]) if math.isfinite(value) else math.nan
    except OverflowError:
        return math.nan


class TwoPoint:
    """`g_j = (L(θ + eps·z_j) − L(θ − eps·z_j)) / (2·eps)` for each direction z_j of a step.

    With `z ~ N(0, I)` of dimension d and a loss that is smooth over `eps`, `E[g z] = ∇L` and the mean over n directions
    has `E‖ĝ‖² = (d + n + 1)/n · ‖∇L‖²`.

    Differs from the paper: Lemma 2 of Malladi et al. (NeurIPS 2023) has `d + n − 1`, which holds for z of norm √d.

    Args:
        eps: Perturbation scale.
    """

    def __init__(self, eps: float) -> None:
        self.eps = eps

    def estimate(self, direction: Direction, loss: Callable[[], float], seeds: Sequence[int]) -> Probe:
        """Evaluate the loss on both sides along each direction.

        Args:
            direction: How z is applied.
            loss: Loss of the model as it now computes, over the step's whole batch.
            seeds: One per direction.
        """
        losses: list[tuple[float, float]] = []
        for seed in seeds:
            with direction.at(seed, self.eps):
                above = loss()
            with direction.at(seed, -self.eps):
                below = loss()
            losses.append((above, below))
        coefficients = tuple(to_float32((above - below) / (2 * self.eps)) for above, below in losses)
        return Probe(tuple(seeds), coefficients, tuple(losses), n_forward=2 * len(losses))
