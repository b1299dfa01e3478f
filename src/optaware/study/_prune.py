"""Early stopping of hopeless grid points: from the dev curves on disk to the points that go on, rung by rung."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from optaware._io import read_jsonl
from optaware.errors import InputError
from optaware.records import Pruning, RunSpec, Schedule, short_id
from optaware.store import RunFolder, Store

__all__ = ["Pruned", "Race", "check_pruning", "expected_steps", "race", "rungs"]

_FEWEST_OTHERS = 2
"""Points that a median is taken of, at least."""


@dataclass(frozen=True)
class Pruned:
    """Why a point was stopped: `accuracy` and `loss` on the dev rows, as they were at that rung."""

    reason: str
    accuracy: float | None
    loss: float | None


@dataclass(frozen=True)
class Race:
    """Where the points of a grid stand.

    Attributes:
        pruned: Points that were stopped, by their place in the grid.
        due: Runs that have to go on before the next decision, with the step to go to; None: to their end.
    """

    pruned: dict[int, Pruned]
    due: tuple[tuple[RunSpec, int | None], ...]


def check_pruning(rule: Pruning, methods: Sequence[str]) -> None:
    """Refuse what cannot be stopped early.

    Raises:
        InputError: A method that runs in a loop of its own, or a rule whose library is not installed.
    """
    from optaware.train.methods import HOMES

    if own := sorted(set(methods) & set(HOMES)):
        raise InputError.of(
            "prune-method", ", ".join(own), "it trains in a loop of its own, which has no rungs", "Leave out `prune`."
        )
    if rule.rule == "median" and find_spec("optuna") is None:
        raise InputError.of(
            "extra-missing", "prune: median", "optuna is not installed", "Install it: pip install 'optaware[search]'."
        )


def rungs(rule: Pruning, schedules: Sequence[Schedule]) -> Iterator[int]:
    """Numbers of evaluations after which points are compared: `after·factor^k`, before the last evaluation.

    Counted in evaluations because grid points with smaller batches evaluate after as many rows, not after as many
    steps.
    """
    last = min(math.ceil(schedule.steps / schedule.eval_every) for schedule in schedules)
    number = rule.after
    while number < last:
        yield number
        number *= rule.factor


def expected_steps(rule: Pruning, schedules: Sequence[Schedule]) -> list[int]:
    """Steps of each point if those that come first in the grid went on; with `median`, all of them (an upper bound)."""
    steps = [schedule.steps for schedule in schedules]
    if rule.rule == "halving":
        alive = len(schedules)
        for number in rungs(rule, schedules):
            kept = math.ceil(alive / rule.factor)
            for index in range(kept, alive):
                steps[index] = _step(schedules[index], number)
            alive = kept
    return steps


def race(rule: Pruning, points: Sequence[Sequence[RunSpec]], store: Store, failed: frozenset[str]) -> Race:
    """Which points go on, from their dev rows alone; the same curves give the same answer, in whatever order they came.

    At each rung a point counts with what it would be chosen by if training ended there: mean dev accuracy at each
    run's step of lowest dev loss so far, then that loss. Points with a run that failed or diverged take no part, at no
    rung, so that they cannot be the reason for stopping another one.

    - `halving`: of n points the best ⌈n/factor⌉ go on (synchronous successive halving).
    - `median`: a point whose best accuracy so far is below the median of the other points' at this rung is stopped
      (optuna's `MedianPruner`).

    Args:
        rule: The rule.
        points: Runs by point of the grid.
        store: Where they lie.
        failed: Ids of runs that ended without a result.

    Source: Jamieson and Talwalkar, AISTATS 2016 (successive halving); Golovin et al., KDD 2017 (median stopping).
    """
    curves = [[_Curve(run, store, failed) for run in runs] for runs in points]
    alive = [index for index, runs in enumerate(curves) if not any(curve.out for curve in runs)]
    pruned: dict[int, Pruned] = {}
    history: dict[int, dict[int, float]] = {index: {} for index in alive}
    for number in rungs(rule, [runs[0].schedule for runs in points]):
        due = [(c.run, _step(c.run.schedule, number)) for i in alive for c in curves[i] if not c.reached(number)]
        if due:
            return Race(pruned, tuple(due))
        seen = {index: _mean([curve.at(number) for curve in curves[index]]) for index in alive}
        for index in alive:
            history[index][number] = max(0.0, seen[index][0])
        stopped = _halving(rule, seen, number) if rule.rule == "halving" else _median(history, alive, number)
        for index, why in stopped.items():
            accuracy, loss = seen[index]
            told = f"stopped after evaluation {number} (step {_step(points[index][0].schedule, number)}): {why}"
            pruned[index] = Pruned(told, _finite(accuracy), _finite(loss))
        alive = [index for index in alive if index not in stopped]
    return Race(pruned, tuple((curve.run, None) for index in alive for curve in curves[index] if not curve.done))


class _Curve:
    """One run's evaluations on the dev rows."""

    def __init__(self, run: RunSpec, store: Store, failed: frozenset[str]) -> None:
        folder = store.run_folder(run)
        self.run, self.done = run, folder.is_done
        self.rows = _evaluations(folder)
        self.out = _without_result(folder, short_id(run) in failed)

    def reached(self, number: int) -> bool:
        return self.done or any(row["step"] >= _step(self.run.schedule, number) for row in self.rows)

    def at(self, number: int) -> tuple[float, float]:
        """Accuracy and loss at the step of lowest loss so far; the worst there is when no loss was finite."""
        last = _step(self.run.schedule, number)
        finite = [row for row in self.rows if row["step"] <= last and row["loss"] is not None]
        if not finite:
            return -math.inf, math.inf
        best = min(finite, key=lambda row: float(row["loss"]))
        return float(best["accuracy"]), float(best["loss"])


def _evaluations(folder: RunFolder) -> list[dict[str, Any]]:
    if not folder.evals.exists():
        return []
    return [row for row in read_jsonl(folder.evals, torn_tail=True) if row["split"] == "dev"]


def _without_result(folder: RunFolder, failed: bool) -> bool:
    if folder.is_done:
        result = folder.read_result()
        return result.outcome != "done" or result.dev is None
    status = folder.read_status()
    return failed or (status is not None and status.state == "failed")


def _step(schedule: Schedule, number: int) -> int:
    return min(number * schedule.eval_every, schedule.steps)


def _mean(values: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(value[0] for value in values) / len(values), sum(value[1] for value in values) / len(values)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _halving(rule: Pruning, seen: dict[int, tuple[float, float]], number: int) -> dict[int, str]:
    ranked = sorted(seen, key=lambda index: (-seen[index][0], seen[index][1], index))
    kept = math.ceil(len(ranked) / rule.factor)
    return {
        index: f"successive halving, place {place} of {len(ranked)} by dev accuracy, {kept} went on"
        for place, index in enumerate(ranked[kept:], start=kept + 1)
    }


def _median(history: dict[int, dict[int, float]], alive: Sequence[int], number: int) -> dict[int, str]:
    from optuna import create_study, logging
    from optuna.pruners import MedianPruner
    from optuna.trial import TrialState, create_trial

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        stopped = {}
        pruner = MedianPruner(n_startup_trials=_FEWEST_OTHERS, n_warmup_steps=0)
        for index in alive:
            study = create_study(direction="maximize", pruner=pruner)
            for other in alive:
                if other != index:
                    study.add_trial(create_trial(value=history[other][number], intermediate_values=history[other]))
            trial = create_trial(state=TrialState.RUNNING, intermediate_values=history[index])
            if pruner.prune(study, trial):
                stopped[index] = f"median rule, its best dev accuracy is below the median of the other {len(alive) - 1}"
        return stopped
    finally:
        logging.set_verbosity(before)
