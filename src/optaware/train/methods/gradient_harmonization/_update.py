from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from optaware.records import GradientHarmonization
from optaware.train.methods.gradient_harmonization._aggregate import Aggregator
from optaware.train.methods.gradient_harmonization._conflict import conflict_index, negative_pairs, normalised_entropy
from optaware.train.methods.gradient_harmonization._network import Params

__all__ = ["FIGURES", "Adam", "combine", "group_names"]

FIGURES = ("GCI", "nGCI", "GCI after", "nGCI after", "negative pair share", "weight entropy")
"""Figures of `combine`, in the order of its last value."""


def group_names(names: Sequence[str], groups: str) -> dict[str, list[str]]:
    """Parameter names by group: all together, by layer (the part before the first dot), or each for itself."""
    found: dict[str, list[str]] = {}
    for name in names:
        key = {"global": "all", "layer": name.split(".")[0], "tensor": name}[groups]
        found.setdefault(key, []).append(name)
    return found


def combine(
    gradients: Params, method: GradientHarmonization, aggregator: Aggregator, share: Tensor
) -> tuple[Params, Tensor]:
    """One gradient out of those of n tasks, group by group: `λ q + (1 − λ) u` with `u = Σ w_i g_i`.

    "After" figures are of the gradients as they enter the sum, n·v_i·g_i with v the weights that were applied: their
    mean is the gradient that is followed. (Against any direction other than q the index of the bare g_i is
    never lower than against q, so it could not show a gain.)

    Args:
        gradients: g_i by parameter, each [n, …].
        method: Groups and rescaling.
        aggregator: Gramian → weights.
        share: λ, a scalar tensor.

    Returns:
        The gradient by parameter, and `FIGURES` [6].
    """
    count = next(iter(gradients.values())).shape[0]
    flat = {name: value.reshape(count, -1) for name, value in gradients.items()}
    before = after = entropies = None
    direction: Params = {}
    grouped = group_names(list(gradients), method.groups)
    for names in grouped.values():
        gramian = sum((flat[name] @ flat[name].T for name in names), torch.zeros((), device=share.device))
        weights = aggregator(gramian)
        entropy = normalised_entropy(weights)
        if method.rescale:
            norm = (weights @ gramian @ weights).clamp_min(torch.finfo(gramian.dtype).tiny).sqrt()
            weights = weights * gramian.mean().clamp_min(0).sqrt() / norm
        applied = share / count + (1 - share) * weights
        scaled = gramian * torch.outer(applied, applied) * count**2
        before = gramian if before is None else before + gramian
        after = scaled if after is None else after + scaled
        entropies = entropy if entropies is None else entropies + entropy
        for name in names:
            direction[name] = (applied @ flat[name]).view(gradients[name].shape[1:])
    assert before is not None
    assert after is not None
    assert entropies is not None
    figures = [*conflict_index(before), *conflict_index(after), negative_pairs(before), entropies / len(grouped)]
    return direction, torch.stack(figures)


class Adam:
    """Adam (Kingma and Ba, 2015) on named tensors, in place, its count a tensor: it can be part of a CUDA graph.

    An update whose gradient is not finite changes nothing, not even the moments.

    Args:
        params: The parameters, changed in place.
    """

    beta1, beta2, eps = 0.9, 0.999, 1e-8

    def __init__(self, params: Params) -> None:
        self.params = params
        self.first = {name: torch.zeros_like(value) for name, value in params.items()}
        self.second = {name: torch.zeros_like(value) for name, value in params.items()}
        first = next(iter(params.values()))
        self.count = torch.zeros((), dtype=torch.float64, device=first.device)

    def step(self, gradient: Params, lr: Tensor) -> tuple[Tensor, Tensor]:
        """Make one update; returns whether it was made (a boolean scalar) and the norm of the gradient."""
        square = torch.stack([(value * value).sum() for value in gradient.values()]).sum()
        finite = torch.isfinite(square)
        self.count += finite
        steps = self.count.clamp_min(1)
        rate = (lr * torch.sqrt(1 - self.beta2**steps) / (1 - self.beta1**steps)).to(square.dtype)
        for name, value in gradient.items():
            first, second = self.first[name], self.second[name]
            first.copy_(torch.where(finite, self.beta1 * first + (1 - self.beta1) * value, first))
            second.copy_(torch.where(finite, self.beta2 * second + (1 - self.beta2) * value * value, second))
            delta = rate * first / (second.sqrt() + self.eps)
            self.params[name].sub_(torch.where(finite, delta, torch.zeros_like(delta)))
        return finite, square.sqrt()

    def state(self) -> Params:
        """Moments and count, by name (not copies)."""
        moments = {f"first.{name}": value for name, value in self.first.items()}
        return {**moments, **{f"second.{name}": value for name, value in self.second.items()}, "count": self.count}
