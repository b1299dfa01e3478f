"""What an update costs in forward passes, so that arms can be given the same of them."""

from __future__ import annotations

import math
from typing import Any

from optaware.records import FOFull, FOLoRA, RunSpec, SeededLoRA, TaskMixture, ZerothOrderConfig

__all__ = ["equal_steps", "forwards_of_run", "forwards_per_step"]


def forwards_per_step(method: Any) -> float | None:
    """Forward passes of a whole batch that one update takes, on average over a run; a backward pass counts as two.

    With n queries a step: two-point 2n, one-sided n + 1 (the clean loss is shared), one-point n. A query schedule that
    rises linearly from 1 to n has (n + 1)/2 on average. A config that says it itself (`forwards_per_step`) is believed.

    Returns:
        None when the method does not say what it costs.
    """
    told = getattr(method, "forwards_per_step", None)
    if isinstance(told, int | float):
        return float(told)
    if isinstance(method, FOFull | FOLoRA):
        return 3.0
    if not isinstance(method, ZerothOrderConfig):
        return None
    queries = float(method.queries) if method.query_schedule == "constant" else (method.queries + 1) / 2
    match method.estimator:
        case "two-point":
            return 2 * queries
        case "one-sided":
            return queries + 1
        case _:
            return queries


def forwards_of_run(spec: RunSpec) -> int | None:
    """Forward passes of a whole batch that a run is given; None when its method does not say what it costs."""
    if isinstance(spec.method, SeededLoRA) and isinstance(spec.data, TaskMixture):
        return spec.method.forwards_of_run(spec.schedule.steps, len(spec.data.tasks))
    cost = forwards_per_step(spec.method)
    return None if cost is None else round(cost * spec.schedule.steps)


def equal_steps(steps: int, eval_every: int, baseline: float | None, arm: float | None) -> tuple[int, int]:
    """Steps and evaluation interval with which an arm spends as many forward passes as the baseline.

    Both are whole numbers, at least 1; the arm is evaluated as often as the baseline, or nearly.

    Args:
        steps: The baseline's updates.
        eval_every: Its updates between evaluations.
        baseline: Forward passes per update of the baseline; None: unknown, then the steps are kept.
        arm: Of the arm.
    """
    if baseline is None or arm is None or baseline == arm or steps == 0:
        return steps, eval_every
    evaluations = max(1, round(steps / eval_every))
    own = max(1, round(steps * baseline / arm))
    return own, max(1, math.ceil(own / evaluations))
