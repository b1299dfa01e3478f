"""An estimator's question and its answer, apart: which points it asks the loss of, and what it makes of the losses.

An estimator evaluates losses as it goes. To share them among processes, or to gather them from parts of a batch that
come one after another, the points must be known first and the losses be given later. Both follow from the estimator's
one method by letting it run on a direction that only takes notes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from optaware.train._types import Probe

if TYPE_CHECKING:
    from optaware.train.estimators import Estimator

__all__ = ["Point", "answered", "asked"]

Point = tuple[int, float]
"""Seed and scale: the point `θ + scale·z(seed)`; scale 0 is θ itself."""


class _Notes:
    """A direction that perturbs nothing and remembers where it was told to go."""

    supports_batch = False

    def __init__(self) -> None:
        self.here: Point = (0, 0.0)

    @contextmanager
    def at(self, seed: int, scale: float) -> Iterator[None]:
        self.here = (seed, scale)
        try:
            yield
        finally:
            self.here = (0, 0.0)


def asked(estimator: Estimator, seeds: Sequence[int], eps: float | None = None) -> list[Point]:
    """The points that the estimator's next step evaluates, in its order; the estimator is left as it is."""
    notes, points = _Notes(), list[Point]()

    def loss() -> float:
        points.append(notes.here)
        return float(len(points))

    run: Any = copy.deepcopy(estimator).estimate
    run(notes, loss, seeds, eps)
    return points


def answered(estimator: Estimator, seeds: Sequence[int], losses: Sequence[float], eps: float | None = None) -> Probe:
    """The estimator's probe, made from the losses at `asked(...)`, in that order; what it remembers moves on."""
    given = iter(losses)
    run: Any = estimator.estimate
    probe: Probe = run(_Notes(), lambda: next(given), seeds, eps)
    return probe
