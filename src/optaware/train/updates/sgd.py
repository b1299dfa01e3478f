"""Plain descent along the probed directions, and its sign."""

from __future__ import annotations

from optaware.train.directions import Direction
from optaware.train.updates._rule import Rule, Weighted, estimate_of

__all__ = ["SGD", "Sign"]


class SGD(Rule):
    """`θ ← (1 − lr·weight_decay)·θ − lr·ĝ`, `ĝ = mean_j g_j·z_j`: nothing is remembered, no gradient is held.

    Source: Malladi et al., NeurIPS 2023, Algorithms 1 and 2.

    Args:
        lr: Learning rate.
        weight_decay: Share of the matrices that is taken off per unit of learning rate.
        clip: Largest size of a coefficient g; None: any.
    """

    def _move(self, direction: Direction, weighted: Weighted, lr: float) -> None:
        for seed, weight in weighted:
            direction.move(seed, -lr * weight)


class Sign(Rule):
    """`θ ← (1 − lr·weight_decay)·θ − lr·sign(ĝ)`, entry by entry.

    For a low-rank direction the sign is that of the factor's entries, `A ← A − lr·sign(Σ_j g_j·U_j)`; the sign of the
    product would not be of low rank. One parameter's ĝ is held at a time.

    Source: ZO-signSGD (Liu et al., ICLR 2019).

    Args:
        lr: Learning rate.
        weight_decay: Share of the matrices that is taken off per unit of learning rate.
        clip: Largest size of a coefficient g; None: any.
    """

    def _move(self, direction: Direction, weighted: Weighted, lr: float) -> None:
        for name in direction.weights():
            direction.shift(name, estimate_of(direction, weighted, name).sign_().mul_(-lr))
