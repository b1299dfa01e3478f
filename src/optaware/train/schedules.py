"""Learning rate, perturbation scale and number of queries as functions of the step alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

from optaware.records import ZerothOrderConfig

__all__ = ["EPS_FLOOR", "Settings", "settings_at", "shape_at"]

EPS_FLOOR = 0.1
"""Share of `eps` that a falling schedule ends at: a scale of 0 cannot be probed with."""


@dataclass(frozen=True)
class Settings:
    """What one step goes by."""

    lr: float
    eps: float
    queries: int


def shape_at(kind: str, progress: float) -> float:
    """Factor of a schedule: 1 at progress 0; `linear` and `cosine` reach 0 at progress 1."""
    match kind:
        case "constant":
            return 1.0
        case "linear":
            return 1.0 - progress
        case "cosine":
            return 0.5 * (1.0 + math.cos(math.pi * progress))
        case _:
            raise ValueError(f"unknown schedule {kind!r}")


def settings_at(config: ZerothOrderConfig, step: int, steps: int) -> Settings:
    """Settings of update `step` (from 1) of `steps`.

    lr: rises linearly to `lr` over the first `warmup` steps, then follows `lr_schedule`; the last step has a factor
    just above 0. eps: follows `eps_schedule` from `eps` to a tenth of it at the last step. queries: `linear` goes from
    1 to `queries`, rounded to the nearest whole number.

    Nothing is carried from step to step, so a resumed or replayed run has the same settings.

    Args:
        config: The method.
        step: Number of the update, from 1.
        steps: Updates that the run asks for.
    """
    warm = min(1.0, step / config.warmup) if config.warmup else 1.0
    after = max(0, step - 1 - config.warmup) / max(1, steps - config.warmup)
    lr = config.lr * warm * shape_at(config.lr_schedule, min(1.0, after))
    progress = min(1.0, (step - 1) / max(1, steps - 1))
    eps = config.eps * (EPS_FLOOR + (1.0 - EPS_FLOOR) * shape_at(config.eps_schedule, progress))
    queries = config.queries
    if config.query_schedule == "linear":
        queries = round(1 + (config.queries - 1) * progress)
    return Settings(lr, eps if config.eps_schedule != "constant" else config.eps, queries)
