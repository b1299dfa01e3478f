"""Weighted sums of ΔW, exactly: the factors side by side."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from optaware.train.merging._adapter import Adapter, Layer
from optaware.train.merging._compatible import check_compatible, check_weights

__all__ = ["add_expert", "weighted"]


def weighted(
    adapters: Sequence[Adapter], weights: Sequence[float] | None = None, *, missing: str = "refuse"
) -> Adapter:
    """`ΔW = Σ w_i ΔW_i` as one adapter of rank `Σ r_i`.

    `a = [a_1; …; a_N]`, `b = [w_1 s_1 b_1, …, w_N s_N b_N]`, so `b·a = Σ w_i s_i b_i a_i` with no approximation. With
    equal weights 1/N this is the uniform average of Seeded LoRA.

    Args:
        adapters: The experts.
        weights: One per adapter; None: 1/N each.
        missing: See `check_compatible`.

    Raises:
        InputError: The adapters do not fit together, or there is not one finite weight for each.
    """
    adapters = check_compatible(adapters, missing=missing)
    weights = [1 / len(adapters)] * len(adapters) if weights is None else list(weights)
    check_weights(weights, len(adapters))
    layers = {}
    for name in adapters[0].layers:
        parts = [(adapter.layers[name], weight) for adapter, weight in zip(adapters, weights, strict=True)]
        a = torch.cat([layer.a.float() for layer, _ in parts])
        b = torch.cat([layer.b.float() * (weight * layer.scale) for layer, weight in parts], dim=1)
        layers[name] = Layer(a, b)
    return like(adapters, layers, {"weights": [float(weight) for weight in weights]})


def add_expert(merged: Adapter, count: int, expert: Adapter) -> Adapter:
    """The uniform average of `count + 1` experts from that of `count`: `(count · ΔW + ΔW_new) / (count + 1)`.

    A task can so be added later without the other experts at hand.
    """
    return weighted([merged, expert], [count / (count + 1), 1 / (count + 1)])


def like(adapters: Sequence[Adapter], layers: dict[str, Layer], notes: dict[str, object]) -> Adapter:
    """An adapter of the same base model with other layers."""
    first = adapters[0]
    known = next((each.base_sha256 for each in adapters if each.base_sha256), None)
    notes = {"merged_from": [each.name for each in adapters], **notes}
    return Adapter("merged", layers, first.base, known, first.fan_in_fan_out, notes)
