"""The direction that a method config names."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

from optaware.records import ZerothOrderConfig
from optaware.train.directions._protocol import Direction
from optaware.train.directions.dense import Dense
from optaware.train.directions.inplace import InPlace
from optaware.train.directions.lowrank import LowRank

__all__ = ["make_direction"]


def make_direction(model: Any, method: ZerothOrderConfig, seed: int) -> Direction:
    """The direction of `method` on a model; parameters that `include` leaves out are frozen.

    Args:
        model: The model.
        method: The method's config.
        seed: The run's seed.

    Raises:
        ModelError: The method cannot be applied to this model.
    """
    if method.include:
        for name, parameter in model.named_parameters():
            if not any(fnmatchcase(name, pattern) for pattern in method.include):
                parameter.requires_grad_(False)
    if method.direction == "low-rank":
        return LowRank(
            model,
            rank=method.rank,
            refresh_every=method.refresh_every,
            seed=seed,
            layers=method.layers,
            precision=method.precision,
            host_residuals=method.host_residuals,
        )
    kind = InPlace if method.apply == "in-place" else Dense
    return kind(
        model,
        distribution=method.direction,
        seed=seed,
        precision=method.precision,
        mask=method.mask,
        density=method.density,
        layers=method.layers,
        store=method.noise == "store",
    )
