"""Forward differences that share one clean forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from optaware.train._types import Probe
from optaware.train.directions import Direction
from optaware.train.estimators._points import Stateless, checked_eps, losses_at, to_float32
from optaware.train.estimators._spread import spread

__all__ = ["OneSided"]


class OneSided(Stateless):
    """`g_j = (L(θ + eps·z_j) − L(θ)) / eps`, with L(θ) evaluated once for all directions of a step.

    n directions take n + 1 forward passes instead of 2n. `E[g z] = ∇L` up to a bias of order eps², as for two points:
    the term of order eps is even in z and vanishes in the mean. But that term, `eps/2·zᵀ∇²L z`, adds to the variance.

    With `normalise`: `g_j = (L(θ + eps·z_j) − L(θ)) / σ`, σ the standard deviation (n − 1) of the perturbed losses. As
    `E σ² ≈ eps²·‖∇L‖²`, the step `lr·mean_j g_j·z_j` has about the length of a step of normalised SGD,
    `lr·∇L/‖∇L‖`, whatever the size of the gradient. It needs two directions at least.

    Source: FZOO (Dang et al., ICLR 2026).
    Differs from the paper: where it writes `g/(eps·σ)`, the eps is part of our `lr`, so that changing eps alone does
    not change the length of a step.

    Args:
        eps: Perturbation scale.
        normalise: Divide by the standard deviation of the losses instead of by eps.

    Raises:
        InputError: `eps` is not a positive finite number.
    """

    def __init__(self, eps: float, *, normalise: bool = False) -> None:
        self.eps = checked_eps(eps)
        self.normalise = normalise

    def forwards(self, queries: int) -> int:
        """One a direction and the clean one."""
        return queries + 1

    def estimate(
        self, direction: Direction, loss: Callable[[], float], seeds: Sequence[int], eps: float | None = None
    ) -> Probe:
        """Evaluate the clean loss and one along each direction; see `Estimator.estimate`."""
        eps = self.eps if eps is None else eps
        points = [(seeds[0], 0.0), *((seed, eps) for seed in seeds)]
        clean, *perturbed = losses_at(direction, loss, points)
        per = spread(perturbed) if self.normalise else eps
        coefficients = tuple(to_float32((value - clean) / per if per else 0.0) for value in perturbed)
        losses = tuple((value, clean) for value in perturbed)
        return Probe(tuple(seeds), coefficients, losses, self.forwards(len(seeds)))
