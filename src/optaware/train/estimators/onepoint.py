"""Estimates from one loss a direction."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from optaware.train._types import Probe
from optaware.train.directions import Direction
from optaware.train.estimators._points import Stateless, checked_eps, losses_at, to_float32

__all__ = ["OnePoint", "OnePointResidual"]


class OnePoint(Stateless):
    """`g_j = L(θ + eps·z_j) / eps`: one forward pass a direction.

    `E[g z] = ∇L`, but the variance grows as `L²/eps²`: it is here to be compared with, and for losses near zero.

    Source: Flaxman, Kalai and McMahan, SODA 2005.

    Args:
        eps: Perturbation scale.

    Raises:
        InputError: `eps` is not a positive finite number.
    """

    def __init__(self, eps: float) -> None:
        self.eps = checked_eps(eps)

    def forwards(self, queries: int) -> int:
        """One a direction."""
        return queries

    def estimate(
        self, direction: Direction, loss: Callable[[], float], seeds: Sequence[int], eps: float | None = None
    ) -> Probe:
        """Evaluate one loss along each direction; see `Estimator.estimate`."""
        eps = self.eps if eps is None else eps
        losses = losses_at(direction, loss, [(seed, eps) for seed in seeds])
        coefficients = tuple(to_float32(value / eps) for value in losses)
        return Probe(tuple(seeds), coefficients, tuple((value,) for value in losses), self.forwards(len(seeds)))


class OnePointResidual:
    """`g_j = (L_t(θ_t + eps·z_j) − L_{t−1}(θ_{t−1} + eps·z'_j)) / eps`: the loss of the step before stands in for L(θ).

    One forward pass a direction, with far less variance than `OnePoint`. The first step only takes its losses (its
    coefficients are 0). A loss that is not finite is skipped, and the one before it is kept for the next step. When a
    step has more directions than the one before, those that are new start from the mean of the losses before.

    Losses are rounded to float32 before they are used, and the journal keeps them instead of the coefficients, from
    which they could not be had back exactly.

    Source: Zhang et al., Automatica 2022; Malladi et al., NeurIPS 2023, appendix B.

    Args:
        eps: Perturbation scale.

    Raises:
        InputError: `eps` is not a positive finite number.
    """

    def __init__(self, eps: float) -> None:
        self.eps = checked_eps(eps)
        self._last: list[float] = []

    def forwards(self, queries: int) -> int:
        """One a direction."""
        return queries

    def estimate(
        self, direction: Direction, loss: Callable[[], float], seeds: Sequence[int], eps: float | None = None
    ) -> Probe:
        """Evaluate one loss along each direction; see `Estimator.estimate`."""
        eps = self.eps if eps is None else eps
        return self._compare(seeds, losses_at(direction, loss, [(seed, eps) for seed in seeds]), eps)

    def _compare(self, seeds: Sequence[int], losses: Sequence[float], eps: float) -> Probe:
        """Coefficients of these losses; they become the losses of the step before."""
        losses = [to_float32(value) for value in losses]
        before = losses
        if self._last:
            mean = to_float32(sum(self._last) / len(self._last))
            before = (self._last + [mean] * len(losses))[: len(losses)]
        pairs = list(zip(losses, before, strict=True))
        self._last = [value for value in (new if math.isfinite(new) else old for new, old in pairs) if value == value]
        coefficients = tuple(to_float32((new - old) / eps) for new, old in pairs)
        return Probe(tuple(seeds), coefficients, tuple((value,) for value in losses), len(losses))

    def kept(self, probe: Probe) -> tuple[float, ...]:
        """The losses."""
        return tuple(value for (value,) in probe.losses)

    def recall(self, seeds: Sequence[int], kept: Sequence[float], eps: float | None = None) -> Probe:
        """The probe whose losses were `kept`; needs the losses of the step before, so steps are recalled in order."""
        return self._compare(seeds, kept, self.eps if eps is None else eps)

    def state(self) -> dict[str, Tensor]:
        """`last`: the losses of the step before, (queries,), fp32."""
        return {"last": torch.tensor(self._last, dtype=torch.float32)}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up `last`."""
        self._last = state["last"].tolist() if "last" in state else []
