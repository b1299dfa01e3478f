from __future__ import annotations

import math

from optaware.records import GradientHarmonization
from optaware.train._seeds import derive_seed

__all__ = ["EXPONENTIAL_RATE", "explore_share", "learning_rate", "mixing"]

EXPONENTIAL_RATE = 1.5936242600400400923
"""k with (1 − e⁻ᵏ)/k = ½: the exponential schedule then has the area of the cosine and of the linear one."""


def explore_share(kind: str, progress: float, cycles: int = 4) -> float:
    """λ at a share of the run done: how much of the plain mean gradient is used.

    cosine ½(1 + cos πx), linear 1 − x, exponential e^(−kx), constant ½, cyclic: the cosine `cycles` times, none 0.
    All but none have the mean ½ over x in [0, 1], so that they differ in shape and not in amount.

    Args:
        kind: Name of the schedule.
        progress: x = t/T, from 0 to 1.
        cycles: Restarts of the cyclic schedule.
    """
    if kind == "cosine":
        return 0.5 * (1 + math.cos(math.pi * progress))
    if kind == "linear":
        return 1 - progress
    if kind == "exponential":
        return math.exp(-EXPONENTIAL_RATE * progress)
    if kind == "constant":
        return 0.5
    if kind == "cyclic":
        return 0.5 * (1 + math.cos(math.pi * ((progress * cycles) % 1.0)))
    return 0.0


def mixing(method: GradientHarmonization, step: int, steps: int, seed: int) -> float:
    """Share of the mean gradient in update `step` (from 1), after the mode: λ_t, a draw with its odds, or a switch."""
    share = explore_share(method.explore, (step - 1) / max(1, steps - 1), method.cycles)
    if method.mode == "sample":
        return float(derive_seed(seed, "explore", step) / 2**64 < share)
    if method.mode == "switch":
        return float(share >= 0.5)
    return share


def learning_rate(method: GradientHarmonization, step: int, steps: int) -> float:
    """Meta learning rate of update `step` (from 1): constant, or a half cosine from `lr` to zero."""
    if method.lr_schedule == "constant":
        return method.lr
    return 0.5 * method.lr * (1 + math.cos(math.pi * (step - 1) / steps))
