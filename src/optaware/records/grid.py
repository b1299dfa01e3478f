"""Grids: the settings that a method arm is tried with, and how one of them is chosen on dev rows alone."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from optaware.records._base import Record
from optaware.records.methods import Method
from optaware.records.run import Schedule

__all__ = ["Grid", "GridPoint", "Pruning", "Selection", "grid_points"]

Grid = dict[str, Annotated[tuple[float | int | str | bool | None, ...], Field(min_length=1)]]
"""Values to try by field: a field of the method's config (`lr`, `rank`), or `batch_size`."""


class GridPoint(NamedTuple):
    """One combination of a grid's values."""

    changes: tuple[tuple[str, Any], ...]
    config: Method
    schedule: Schedule

    @property
    def words(self) -> str:
        """The point as `lr 1e-06, batch_size 8`."""
        return ", ".join(
            f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in self.changes
        )


class Pruning(Record):
    """Stop hopeless points of a grid early, by their dev rows: all points train up to a rung, then some go on.

    Rungs are numbers of evaluations: `after`, `after·factor`, `after·factor²`, … before the last one. Who goes on
    depends on the dev curves alone, never on the order or the machine that they came from.
    """

    rule: Literal["halving", "median"] = "halving"
    """`halving`: the best ⌈n/factor⌉ of n points go on; `median`: points below the median of the others are stopped
    (optuna)."""
    after: Annotated[int, Field(ge=1)] = 1
    """Evaluations before the first decision."""
    factor: Annotated[int, Field(ge=2)] = 3
    """How much farther each rung is, and with `halving`, how few go on."""


class Selection(Record):
    """How a point of a grid is chosen. Runs that take part in the choice never see a test row.

    The choice is made per model, task, arm and variant: highest mean dev accuracy at each run's chosen step, ties by
    lower mean dev loss, then by order in the grid. A point with a run that failed or diverged cannot be chosen.
    """

    seeds: Annotated[tuple[int, ...] | None, Field(min_length=1)] = None
    """Seeds whose dev accuracies are averaged; None: the first seed of the study."""
    per_seed: bool = False
    """Let each seed of the study choose for itself, by its own dev accuracy (the spread over seeds then holds that of
    the choice); `seeds` is not used."""
    prune: Pruning | None = None
    """Stop hopeless points early; None: all points train to their end."""


def grid_points(config: Method, schedule: Schedule, grid: Mapping[str, tuple[Any, ...]]) -> tuple[GridPoint, ...]:
    """All combinations of a grid's values, the last field varying fastest.

    `batch_size` keeps the number of training rows that are processed: steps and evaluation interval grow as the batch
    shrinks (rounded up), so that every point gets the same tokens and as many evaluations.

    Args:
        config: The arm's method.
        schedule: Its schedule.
        grid: Values by field.

    Raises:
        ValueError: A field that the method does not have, or a value that it does not take.
    """
    unknown = sorted(set(grid) - set(type(config).model_fields) - {"batch_size"} | set(grid) & {"name"})
    if unknown:
        known = ", ".join(name for name in type(config).model_fields if name != "name")
        raise ValueError(f"grid names unknown fields {unknown}; {config.name} has {known}, and batch_size")
    points = []
    for values in product(*grid.values()):
        changes = dict(zip(grid, values, strict=True))
        own = {name: value for name, value in changes.items() if name != "batch_size"}
        changed = type(config).model_validate({**config.to_json(), **own})
        size = changes.get("batch_size", schedule.batch_size)
        points.append(GridPoint(tuple(changes.items()), changed, with_batch_size(schedule, size)))
    return tuple(points)


def with_batch_size(schedule: Schedule, size: Any) -> Schedule:
    """The schedule with another batch size and as many training rows processed."""
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"batch_size {size!r} is not a whole number of 1 or more")
    if size == schedule.batch_size:
        return schedule
    old = schedule.batch_size

    def scaled(count: int) -> int:
        return -(-count * old // size)

    return Schedule.model_validate(
        {
            **schedule.to_json(),
            "batch_size": size,
            "accumulation": schedule.accumulation if size % schedule.accumulation == 0 else 1,
            "steps": scaled(schedule.steps),
            "eval_every": max(1, scaled(schedule.eval_every)),
        }
    )
