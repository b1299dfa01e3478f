"""Losses at points around the weights, one by one or as copies of the batch in one forward pass."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence

from torch import Tensor

from optaware.errors import InputError
from optaware.train._types import Probe
from optaware.train.directions import Direction

__all__ = ["Point", "Stateless", "batches_of", "checked_eps", "losses_at", "losses_of", "to_float32"]

Point = tuple[int, float]
"""Seed and scale: the point `θ + scale·z(seed)`; scale 0 is θ itself."""


def checked_eps(eps: float) -> float:
    """`eps`, where points can be told apart with it.

    Raises:
        InputError: It is not a positive finite number.
    """
    if not 0 < eps < math.inf:
        raise InputError.of(
            "eps-not-positive",
            f"eps = {eps!r}",
            "the points of a probe lie eps·z away from the weights, and coefficients are divided by eps",
            "Give a positive number, such as 1e-3.",
        )
    return eps


def to_float32(value: float) -> float:
    """The nearest float32, as a Python float; NaN when `value` is not finite or too large for one."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0]) if math.isfinite(value) else math.nan
    except OverflowError:
        return math.nan


def batches_of(direction: Direction, loss: Callable[[], float], points: Sequence[Point]) -> list[Sequence[Point]]:
    """Cut the points of a step into those that go through the model in one forward pass, in order.

    Where the direction can perturb copies of a batch differently (`supports_batch`) and the loss can tell them apart
    (`most_copies` above 1), as many points as that; one by one otherwise. A loss's last bits depend on the shape of its
    forward pass, so the cut follows from points, direction and loss alone: processes that share a step take whole
    pieces of it.
    """
    most = getattr(loss, "most_copies", 1) if getattr(direction, "supports_batch", False) else 1
    return [points[start : start + most] for start in range(0, len(points), most)]


def losses_of(direction: Direction, loss: Callable[[], float], batches: Sequence[Sequence[Point]]) -> list[float]:
    """Loss of the step's batch at each point of some pieces, one forward pass a piece."""
    found: list[float] = []
    for points in batches:
        if len(points) > 1:
            with direction.batched(points):
                found += loss.copies(len(points))  # type: ignore[attr-defined]
        else:
            seed, scale = points[0]
            with direction.at(seed, scale):
                found.append(loss())
    return found


def losses_at(direction: Direction, loss: Callable[[], float], points: Sequence[Point]) -> list[float]:
    """Loss of the step's batch at each point; the losses are the same up to rounding however many go at once.

    Args:
        direction: How z is applied.
        loss: Loss of the model as it now computes, over the step's whole batch; see `BatchLoss`.
        points: Seed and scale of each point.
    """
    return losses_of(direction, loss, batches_of(direction, loss, points))


class Stateless:
    """What estimators share whose coefficients follow from the losses of one step alone."""

    def kept(self, probe: Probe) -> tuple[float, ...]:
        """The float32 values, one per direction, that the journal keeps of a probe: here the coefficients."""
        return probe.coefficients

    def recall(self, seeds: Sequence[int], kept: Sequence[float], eps: float | None = None) -> Probe:
        """The probe that `kept` was written of, without its losses."""
        return Probe(tuple(seeds), tuple(kept), (), 0)

    def state(self) -> dict[str, Tensor]:
        """Nothing is remembered from step to step."""
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Nothing to take up."""
