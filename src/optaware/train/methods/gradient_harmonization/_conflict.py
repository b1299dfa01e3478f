from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["conflict_index", "negative_pairs", "normalised_entropy"]


def conflict_index(gramian: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient Conflict Index of n gradients with mean q, and its norm-free form.

    `GCI = Σ_i (‖g_i‖ − ⟨g_i, q⟩/‖q‖)` and `nGCI = GCI / Σ_i ‖g_i‖`, which is 0 when all point the same way and lies in
    [0, 1]: q is the direction u with the largest Σ ⟨g_i, u⟩, so that sum is never negative. Without a direction (q = 0)
    it counts as full conflict.

    Args:
        gramian: ⟨g_i, g_j⟩ [n, n].

    Returns:
        GCI and nGCI, scalars.
    """
    tiny = torch.finfo(gramian.dtype).tiny
    norms = gramian.diagonal().clamp_min(0).sqrt().sum()
    along = gramian.shape[0] * gramian.mean().clamp_min(0).sqrt()  # Σ ⟨g_i, q⟩/‖q‖ = n ‖q‖
    index = (norms - along).clamp_min(0)
    return index, index / norms.clamp_min(tiny)


def negative_pairs(gramian: Tensor) -> Tensor:
    """Share of the pairs i < j with ⟨g_i, g_j⟩ < 0; 0 for a single gradient."""
    count = gramian.shape[0]
    below = torch.tril(torch.ones_like(gramian), diagonal=-1)
    return ((gramian < 0).to(gramian.dtype) * below).sum() / max(1, count * (count - 1) // 2)


def normalised_entropy(weights: Tensor) -> Tensor:
    """Entropy of each row of |weights| (scaled to sum 1) over log n: 1 for equal weights, 0 for one task alone.

    Args:
        weights: [groups, n].

    Returns:
        [groups]; 1 for n = 1.
    """
    if weights.shape[-1] == 1:
        return torch.ones_like(weights[..., 0])
    tiny = torch.finfo(weights.dtype).tiny
    shares = weights.abs() / weights.abs().sum(-1, keepdim=True).clamp_min(tiny)
    return -torch.xlogy(shares, shares).sum(-1) / math.log(weights.shape[-1])
