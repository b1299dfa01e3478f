"""The two-point (SPSA) estimate of the gradient along random directions."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from optaware.train._types import Probe
from optaware.train.directions import Direction
from optaware.train.estimators._points import Stateless, checked_eps, losses_at, to_float32
from optaware.train.estimators._spread import spread

__all__ = ["TwoPoint"]


class TwoPoint(Stateless):
    """`g_j = (L(θ + eps·z_j) − L(θ − eps·z_j)) / (2·eps)` for each direction z_j of a step.

    With `z ~ N(0, I)` of dimension d and a loss that is smooth over `eps`, `E[g z] = ∇L` and the mean over n directions
    has `E‖ĝ‖² = (d + n + 1)/n · ‖∇L‖²`; with Rademacher z, `(d + n − 1)/n · ‖∇L‖²`.

    Source: Spall 1992; Malladi et al., NeurIPS 2023, Definition 1.
    Differs from the paper: Lemma 2 of Malladi et al. has `d + n − 1` for all z; for Gaussian z that holds only when
    they are scaled to norm √d.

    Args:
        eps: Perturbation scale.
        normalise: Divide by the standard deviation of the step's losses instead of by eps (see `OneSided`).

    Raises:
        InputError: `eps` is not a positive finite number.
    """

    def __init__(self, eps: float, *, normalise: bool = False) -> None:
        self.eps = checked_eps(eps)
        self.normalise = normalise

    def forwards(self, queries: int) -> int:
        """Two a direction."""
        return 2 * queries

    def estimate(
        self, direction: Direction, loss: Callable[[], float], seeds: Sequence[int], eps: float | None = None
    ) -> Probe:
        """Evaluate the loss on both sides along each direction; see `Estimator.estimate`."""
        eps = self.eps if eps is None else eps
        found = losses_at(direction, loss, [(seed, sign * eps) for seed in seeds for sign in (1.0, -1.0)])
        losses = list(zip(found[::2], found[1::2], strict=True))
        per = spread(found) if self.normalise else eps
        coefficients = tuple(to_float32((above - below) / (2 * per) if per else 0.0) for above, below in losses)
        return Probe(tuple(seeds), coefficients, tuple(losses), self.forwards(len(seeds)))
