"""Merges that are no weighted sums; they work on ΔW entry by entry and give an adapter of full rank."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from optaware.errors import InputError
from optaware.train._seeds import derive_seed, generator
from optaware.train.merging._adapter import Adapter, Layer
from optaware.train.merging._compatible import check_compatible
from optaware.train.merging._linear import like

__all__ = ["dare", "exact_factors", "ties"]


def ties(adapters: Sequence[Adapter], *, density: float = 0.2, scale: float = 1.0, missing: str = "refuse") -> Adapter:
    """TIES (Yadav et al., NeurIPS 2023): trim, elect a sign, average those that agree.

    Of each ΔW_i the `density` share of largest magnitude is kept; `γ = sign(Σ_i ΔW_i)` entry by entry; the result is
    `scale` times the mean over the kept entries whose sign is γ.

    Args:
        adapters: The experts.
        density: Share of entries that trimming leaves, in (0, 1].
        scale: The paper's λ.
        missing: See `check_compatible`.

    Differs from the paper: it trims over all weights of a task vector together; here each layer is trimmed by itself,
    so that no more than one layer's ΔW of all experts is in memory.
    """
    _check_density(density)

    def merge(deltas: Tensor, name: str) -> Tensor:
        kept = torch.stack([_trimmed(delta, density) for delta in deltas])
        sign = kept.sum(0).sign()
        agree = (kept.sign() == sign) & (sign != 0)
        return scale * (kept * agree).sum(0) / agree.sum(0).clamp(min=1)

    return _each_layer(adapters, merge, missing, {"method": "ties", "density": density, "scale": scale})


def dare(
    adapters: Sequence[Adapter], *, density: float = 0.5, scale: float = 1.0, seed: int = 0, missing: str = "refuse"
) -> Adapter:
    """DARE (Yu et al., ICML 2024) before a uniform average: drop entries of ΔW at random, rescale what is left.

    `ΔW_i ← m_i ⊙ ΔW_i / density` with `m_i ~ Bernoulli(density)`, then `scale · mean_i ΔW_i`.

    Args:
        adapters: The experts.
        density: Probability of keeping an entry (1 − the paper's drop rate), in (0, 1].
        scale: Factor of the average.
        seed: Draws the masks; they depend on it, on the layer's name and on the adapter's place in the list only.
        missing: See `check_compatible`.
    """
    _check_density(density)

    def merge(deltas: Tensor, name: str) -> Tensor:
        total = torch.zeros_like(deltas[0])
        for index, delta in enumerate(deltas):
            source = generator(derive_seed(seed, "dare", name, index))
            keep = torch.rand(delta.shape, generator=source).to(delta.device) < density
            total += delta * keep / density
        return scale * total / len(deltas)

    return _each_layer(adapters, merge, missing, {"method": "dare", "density": density, "scale": scale, "seed": seed})


def exact_factors(delta: Tensor) -> Layer:
    """ΔW as factors without loss: the shorter side's identity matrix beside ΔW itself."""
    out, into = delta.shape
    if into <= out:
        return Layer(torch.eye(into, device=delta.device), delta)
    return Layer(delta, torch.eye(out, device=delta.device))


def _each_layer(
    adapters: Sequence[Adapter], merge: Callable[[Tensor, str], Tensor], missing: str, notes: dict[str, object]
) -> Adapter:
    adapters = check_compatible(adapters, missing=missing)
    layers = {}
    for name in adapters[0].layers:
        deltas = torch.stack([adapter.layers[name].delta() for adapter in adapters])
        layers[name] = exact_factors(merge(deltas, name))
    return like(adapters, layers, notes)


def _trimmed(delta: Tensor, density: float) -> Tensor:
    keep = max(1, round(density * delta.numel()))
    if keep >= delta.numel():
        return delta
    threshold = delta.abs().flatten().kthvalue(delta.numel() - keep + 1).values
    return delta * (delta.abs() >= threshold)


def _check_density(density: float) -> None:
    if not 0 < density <= 1:
        raise InputError.of("density", f"density {density}", "it is a share in (0, 1]", "As in --density 0.2.")
