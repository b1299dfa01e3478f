"""Exponential averages of estimates: stored, or made again from the last seeds and coefficients."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from optaware.train.directions import Direction
from optaware.train.updates._rule import Weighted, estimate_of

__all__ = ["Moments", "Replayed", "Stored", "is_compact"]


class Moments:
    """`M_k ← β_k·M_k + ĝᵏ` for k = 1 and, with a second β, k = 2, with the sum of the weights beside it.

    `advance` takes a step's estimate in; `of` then gives, for one parameter, the sums M_k divided by the sum of their
    weights `Σ_s β_k^(t−s)` over the steps s that went in. For Adam that is its bias-corrected moment.
    """

    def advance(self, direction: Direction, weighted: Weighted) -> None:
        """Take in the estimate of one more step."""
        raise NotImplementedError

    def of(self, direction: Direction, name: str) -> list[tuple[Tensor, float]]:
        """Sum and sum of weights of each moment of one parameter, in coordinates; the tensors may be overwritten."""
        raise NotImplementedError


class Stored(Moments):
    """The sums are kept, in the direction's coordinates: as large as the factors for low-rank directions.

    When the coordinates change (a new V), the first moment starts anew: what it held lies in the old subspace, and two
    random subspaces of high dimension have next to nothing in common. The second moment, a scale by entry, goes on.
    """

    def __init__(self, betas: Sequence[float]) -> None:
        self.betas = tuple(betas)
        self._sums: list[dict[str, Tensor]] = [{} for _ in self.betas]
        self._weights = [0.0] * len(self.betas)
        self._basis: int | None = None

    def advance(self, direction: Direction, weighted: Weighted) -> None:
        if self._basis is not None and direction.basis != self._basis:
            self._sums[0].clear()
            self._weights[0] = 0.0
        self._basis = direction.basis
        self._weights = [beta * weight + 1.0 for beta, weight in zip(self.betas, self._weights, strict=True)]
        for name in direction.weights():
            power = estimate_of(direction, weighted, name)
            for index, (beta, sums) in enumerate(zip(self.betas, self._sums, strict=True)):
                power = power.square() if index else power
                sums[name] = sums[name].mul_(beta).add_(power) if name in sums else power.clone()

    def of(self, direction: Direction, name: str) -> list[tuple[Tensor, float]]:
        return [(sums[name].clone(), weight) for sums, weight in zip(self._sums, self._weights, strict=True)]

    def bytes_per_parameter(self, direction: Direction) -> float:
        sizes = [direction.coordinates(0, name) for name in direction.weights()]
        held = sum(each.numel() * each.element_size() for each in sizes) * len(self.betas)
        return held / sum(weight.numel() for weight in direction.weights().values())

    def state(self) -> dict[str, Tensor]:
        state = {f"moment{k}.{name}": each for k, sums in enumerate(self._sums, 1) for name, each in sums.items()}
        state["moment.weights"] = torch.tensor(self._weights, dtype=torch.float64)
        state["moment.basis"] = torch.tensor([-2 if self._basis is None else self._basis])
        return state

    def load(self, state: dict[str, Tensor], direction: Direction) -> None:
        self._weights = state["moment.weights"].tolist()
        basis = int(state["moment.basis"].item())
        self._basis = None if basis == -2 else basis
        devices = {name: weight.device for name, weight in direction.weights().items()}
        for k, sums in enumerate(self._sums, 1):
            sums.clear()
            for name, device in devices.items():
                if f"moment{k}.{name}" in state:
                    sums[name] = state[f"moment{k}.{name}"].to(device, copy=True)


class Replayed(Moments):
    """The sums are made again, one parameter at a time, from the seeds and weights of the last `window` steps.

    Nothing of the size of the model is kept; a step draws the noise of `window` steps. The terms left out have the
    share `β^window` of the weights of an untruncated average, so with estimates of one size the relative error of M_1
    is at most that (0.5 % for β = 0.9 and 50 steps), while M_2 is the average over the window alone: the same mean, but
    with the variance of `window` instead of `1/(1 − β₂)` steps.

    Source: the recomputation that Malladi et al. (NeurIPS 2023, appendix B.2) describe.
    """

    def __init__(self, betas: Sequence[float], window: int) -> None:
        self.betas, self.window = tuple(betas), window
        self._past: deque[Weighted] = deque(maxlen=window)

    def advance(self, direction: Direction, weighted: Weighted) -> None:
        self._past.append(weighted)

    def of(self, direction: Direction, name: str) -> list[tuple[Tensor, float]]:
        sums: list[Tensor] = []
        for weighted in self._past:
            power = estimate_of(direction, weighted, name)
            for index, beta in enumerate(self.betas):
                power = power.square() if index else power
                if len(sums) <= index:
                    sums.append(power.clone())
                else:
                    sums[index].mul_(beta).add_(power)
        weights = [sum(beta**age for age in range(len(self._past))) for beta in self.betas]
        return list(zip(sums, weights, strict=True))

    def summed(self) -> Weighted:
        """The first sum as seeds and weights: `M_1 = Σ weight·z(seed)`."""
        ages = range(len(self._past) - 1, -1, -1)
        return tuple(
            (seed, weight * self.betas[0] ** age)
            for age, weighted in zip(ages, self._past, strict=True)
            for seed, weight in weighted
        )

    def bytes_per_parameter(self, direction: Direction) -> float:
        return 0.0

    def state(self) -> dict[str, Tensor]:
        width = max((len(weighted) for weighted in self._past), default=0)
        rows = [[*weighted, *[(0, math.nan)] * (width - len(weighted))] for weighted in self._past]
        seeds = [[seed - (1 << 64) if seed >= 1 << 63 else seed for seed, _ in row] for row in rows]
        weights = [[weight for _, weight in row] for row in rows]
        return {
            "past.seeds": torch.tensor(seeds, dtype=torch.int64).reshape(len(rows), width),
            "past.weights": torch.tensor(weights, dtype=torch.float64).reshape(len(rows), width),
        }

    def load(self, state: dict[str, Tensor], direction: Direction) -> None:
        self._past.clear()
        for seeds, weights in zip(state["past.seeds"].tolist(), state["past.weights"].tolist(), strict=True):
            pairs = zip(seeds, weights, strict=True)
            self._past.append(tuple((seed % (1 << 64), weight) for seed, weight in pairs if not math.isnan(weight)))


def is_compact(direction: Direction) -> bool:
    """Whether coordinates take at most half of the numbers that the parameters themselves take."""
    weights = direction.weights()
    small = sum(direction.coordinates(0, name).numel() for name in weights)
    return 2 * small <= sum(weight.numel() for weight in weights.values())
