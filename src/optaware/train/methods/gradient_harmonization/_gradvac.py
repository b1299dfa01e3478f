from __future__ import annotations

import math

import torch
from torch import Tensor

from optaware.train._seeds import generator

__all__ = ["gradvac"]


def gradvac(gramian: Tensor, *, seed: int) -> Tensor:
    """Gradient Vaccine (Wang et al., ICLR 2021): gradients that agree less than usual are turned towards each other.

    For each i, and the others j in a random order: where cos(g_i, g_j) = φ is below the target φ̂,
    `g_i ← g_i + ‖g_i‖ (φ̂ √(1 − φ²) − φ √(1 − φ̂²)) / (‖g_j‖ √(1 − φ̂²)) · g_j`, after which the cosine is φ̂. The result
    is the mean of the changed gradients.

    Args:
        gramian: ⟨g_i, g_j⟩ [n, n].
        seed: Draws the orders.

    Returns:
        Weights [n].

    Differs from the paper: there φ̂ is a moving average over the steps for each pair of languages. Here the tasks of a
    batch are new ones at every step, so a pair has no past; φ̂ is the mean cosine of the batch's own pairs. Nothing is
    carried from step to step, and two tasks give their mean.
    """
    count = gramian.shape[0]
    square = gramian.detach().to("cpu", torch.float64)
    norms = square.diagonal().clamp_min(0).sqrt()
    if count < 2 or not bool(torch.isfinite(square).all()) or float(norms.min()) <= 0:
        return torch.full_like(gramian[0], 1 / count)
    cosines = square / torch.outer(norms, norms)
    target = float((cosines.sum() - cosines.diagonal().sum()) / (count * (count - 1)))
    if not abs(target) < 1:
        return torch.full_like(gramian[0], 1 / count)
    side = math.sqrt(1 - target**2)
    source = generator(seed)
    changed = torch.eye(count, dtype=torch.float64)  # row i: the changed g_i in terms of the g_j
    for i in range(count):
        for j in torch.randperm(count, generator=source).tolist():
            dots = changed[i] @ square
            norm = math.sqrt(max(float(dots @ changed[i]), 0.0))
            if i == j or norm == 0:
                continue
            cosine = max(-1.0, min(1.0, float(dots[j]) / (norm * float(norms[j]))))
            if cosine < target:
                turn = target * math.sqrt(1 - cosine**2) - cosine * side
                changed[i, j] += norm * turn / (float(norms[j]) * side)
    return (changed.sum(0) / count).to(gramian)
