"""Checks of a merge against what it should be, and how alike experts are."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from optaware.errors import IntegrityError
from optaware.train.merging._adapter import Adapter

__all__ = ["IDENTITY_TOLERANCE", "check_identity", "cosines", "identity_error"]

IDENTITY_TOLERANCE = 1e-5
"""Largest error of a merged ΔW, as a share of the layer's largest entry, that fp32 arithmetic may leave."""


def identity_error(merged: Adapter, adapters: Sequence[Adapter], weights: Sequence[float]) -> float:
    """How far `merged` is from `Σ w_i ΔW_i`, computed in fp64 without concatenation.

    Returns:
        `max_layers max|ΔW − Σ w_i ΔW_i| / max_i max|w_i ΔW_i|`; 0 when both are zero.
    """
    worst = 0.0
    for name, layer in merged.layers.items():
        parts = [
            weight * adapter.layers[name].delta(torch.float64)
            for adapter, weight in zip(adapters, weights, strict=True)
            if name in adapter.layers
        ]
        error = float((layer.delta().double() - torch.stack(parts).sum(0)).abs().max())
        size = max(float(part.abs().max()) for part in parts)
        worst = max(worst, error / size if size else error)
    return worst


def check_identity(error: float, name: str) -> None:
    """Refuse a merge that is not what it should be.

    Raises:
        IntegrityError: The error is above the tolerance.
    """
    if not error <= IDENTITY_TOLERANCE:
        raise IntegrityError.of(
            "merge-inexact",
            name,
            f"the merged ΔW is off by {error:.1e} of its size, more than {IDENTITY_TOLERANCE:.0e}",
            "Report it, with the adapters.",
        )


def cosines(adapters: Sequence[Adapter]) -> list[list[float]]:
    """Cosine of ΔW between each two adapters, over all layers together, from the factors alone.

    `⟨ΔW_i, ΔW_j⟩ = s_i s_j Σ (a_i a_jᵀ) ⊙ (b_iᵀ b_j)`, so no ΔW is formed. A zero ΔW has cosine 0 with everything.
    """
    count = len(adapters)
    inner = torch.zeros(count, count, dtype=torch.float64)
    for name in adapters[0].layers:
        layers = [adapter.layers[name] for adapter in adapters]
        for i in range(count):
            for j in range(i, count):
                x, y = layers[i], layers[j]
                product = ((x.a.double() @ y.a.double().T) * (x.b.double().T @ y.b.double())).sum()
                inner[i, j] += x.scale * y.scale * product.cpu()
    inner = inner + inner.triu(1).T
    norms = inner.diagonal().clamp(min=0).sqrt()
    scale = torch.outer(norms, norms)
    values: list[list[float]] = torch.where(scale > 0, inner / scale.clamp(min=1e-300), 0.0).tolist()
    return values
