"""Choosing a point of a grid: by dev rows alone, from what is on disk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optaware._io import lock, read_json, read_jsonl
from optaware.records import ModelRef, Pruning, RunResult, RunSpec, RunStatus, short_id
from optaware.store import RunFolder, Store
from optaware.study._plan_cost import forwards_of_run
from optaware.study._prune import Pruned, Race, race, rungs

__all__ = [
    "Choice",
    "Chosen",
    "Option",
    "choose",
    "chosen_runs",
    "due_runs",
    "failed_before",
    "failed_tries",
    "note_pruned",
]


@dataclass(frozen=True)
class Option:
    """One point of a grid: `tries` are the runs it is judged by (no test row is scored), `finals` those that use it."""

    words: str
    tries: tuple[RunSpec, ...]
    finals: tuple[RunSpec, ...]


@dataclass(frozen=True)
class Choice:
    """A grid of one model, task, arm and variant; `seed` when each seed chooses for itself."""

    model: ModelRef
    task: str
    method: str
    variant: str
    seed: int | None
    options: tuple[Option, ...]
    prune: Pruning | None = None
    """How hopeless points are stopped early; None: all tries run to their end."""

    @property
    def corpus_id(self) -> str | None:
        """The corpus that its runs need."""
        return self.options[0].tries[0].corpus_id

    @property
    def tries(self) -> list[RunSpec]:
        """All runs that the choice is made by."""
        return [run for option in self.options for run in option.tries]


@dataclass(frozen=True)
class Chosen:
    """What came of a choice.

    Attributes:
        choice: The choice.
        option: The chosen point; None while runs are missing, or when no point can be chosen.
        complete: Whether every run that takes part has ended.
        scores: Per point: state (`done`, `failed`, `diverged`, `given-up`, `pruned`, `missing`), mean dev accuracy,
        mean dev loss; of a pruned point, as they were when it was stopped.
        reasons: Per point, why it was stopped early; empty where it was not.
    """

    choice: Choice
    option: Option | None
    complete: bool
    scores: tuple[tuple[str, float | None, float | None], ...]
    reasons: tuple[str, ...]

    def to_json(self, store: Store) -> dict[str, Any]:
        """The choice as a record for people and for the report; `forwards` are those made by the runs of a point,
        `forwards_asked` those of its whole schedule."""
        choice = self.choice
        forwards = [_forwards(option.tries, store) for option in choice.options]
        return {
            "model": choice.model.to_json(),
            "task": choice.task,
            "method": choice.method,
            "variant": choice.variant,
            "seed": choice.seed,
            "chosen": None if self.option is None else self.option.words,
            "points": [
                {
                    "point": option.words,
                    "state": state,
                    "dev_accuracy": accuracy,
                    "dev_loss": loss,
                    "reason": reason,
                    "forwards": made,
                    "forwards_asked": asked,
                    "runs": [short_id(run) for run in option.tries],
                }
                for option, (state, accuracy, loss), reason, (made, asked) in zip(
                    choice.options, self.scores, self.reasons, forwards, strict=True
                )
            ],
        }


def choose(choice: Choice, store: Store, failed: frozenset[str] = frozenset()) -> Chosen:
    """Make a choice: highest mean dev accuracy, then lowest mean dev loss, then the first in the grid.

    Points that were stopped early are never chosen, even where another study has run them to their end.

    Args:
        choice: The grid with its runs.
        store: Where the runs lie.
        failed: Ids of runs that have ended without a result; their points cannot be chosen.

    Returns:
        The choice made; without an option while a run is neither done nor failed.
    """
    pruned = _pruned(choice, store, failed)
    scores = [
        ("pruned", stopped.accuracy, stopped.loss) if stopped else _score(option.tries, store, failed)
        for option, stopped in zip(choice.options, pruned, strict=True)
    ]
    reasons = tuple(stopped.reason if stopped else "" for stopped in pruned)
    complete = all(state != "missing" for state, _, _ in scores)
    usable = [index for index, (state, _, _) in enumerate(scores) if state == "done"]
    if not complete or not usable:
        return Chosen(choice, None, complete, tuple(scores), reasons)

    def rank(index: int) -> tuple[float, float, int]:
        _, accuracy, loss = scores[index]
        return -(accuracy or 0.0), math.inf if loss is None else loss, index

    return Chosen(choice, choice.options[min(usable, key=rank)], True, tuple(scores), reasons)


def failed_tries(folder: Path) -> frozenset[str]:
    """Ids of runs whose point had failed when the study in `folder` chose: one that was killed says so nowhere else."""
    path = folder / "choices.json"
    points = [point for choice in read_json(path) for point in choice["points"]] if path.exists() else []
    return frozenset(run for point in points if point["state"] == "failed" for run in point.get("runs", ()))


def chosen_runs(choices: Sequence[Choice], store: Store, failed: frozenset[str] = frozenset()) -> list[RunSpec]:
    """The runs that follow from the choices that can be made by now, each once."""
    runs = [run for choice in choices if (option := choose(choice, store, failed).option) for run in option.finals]
    return list({short_id(run): run for run in runs}.values())


def due_runs(choices: Sequence[Choice], store: Store, failed: frozenset[str]) -> dict[RunSpec, int | None]:
    """The runs of pruned grids that have to go on before the next decision, with the step to go to (None: the end)."""
    due: dict[RunSpec, int | None] = {}
    for choice in choices:
        for run, step in _race(choice, store, failed).due:
            before = due.get(run, 0)
            due[run] = None if step is None or before is None else max(step, before)
    return due


def failed_before(choices: Sequence[Choice], store: Store) -> dict[RunSpec, int | None]:
    """Runs of pruned grids that an earlier driver saw fail, with the step of the first rung.

    They are tried again before anything is decided.
    """
    found: dict[RunSpec, int | None] = {}
    for choice in choices:
        if choice.prune is not None:
            schedules = [option.tries[0].schedule for option in choice.options]
            first = next(rungs(choice.prune, schedules), None)
            for run in choice.tries:
                status = store.run_folder(run).read_status()
                if status is not None and status.state == "failed":
                    found[run] = None if first is None else min(first * run.schedule.eval_every, run.schedule.steps)
    return found


def note_pruned(choices: Sequence[Choice], store: Store, study: str, failed: frozenset[str]) -> None:
    """Write into the status of runs that were stopped early that they were, and why; their checkpoints go.

    A run that another grid of the study goes on with, or that is done, is left alone.
    """
    stopped: dict[RunSpec, str] = {}
    wanted: set[RunSpec] = set()
    for choice in choices:
        pruned = _race(choice, store, failed).pruned
        for index, option in enumerate(choice.options):
            if index in pruned:
                stopped |= dict.fromkeys(option.tries, pruned[index].reason)
            else:
                wanted |= set(option.tries)
    for run in stopped.keys() - wanted:
        folder = store.run_folder(run)
        status = folder.read_status()
        if folder.is_done or status is None or status.state == "pruned":
            continue
        with lock(folder.lock, wait=False) as mine:
            if mine:
                reached = max((int(row["step"]) for row in _evaluations(folder)), default=0)
                told = RunStatus(state="pruned", step=reached, steps=run.schedule.steps)
                folder.write_status(told.model_copy(update={"detail": f"study {study}: {stopped[run]}"}))
                folder.discard_checkpoints()


def _race(choice: Choice, store: Store, failed: frozenset[str]) -> Race:
    if choice.prune is None:
        return Race({}, ())
    return race(choice.prune, [option.tries for option in choice.options], store, failed)


def _pruned(choice: Choice, store: Store, failed: frozenset[str]) -> list[Pruned | None]:
    found = _race(choice, store, failed).pruned
    return [found.get(index) for index in range(len(choice.options))]


def _forwards(tries: Sequence[RunSpec], store: Store) -> tuple[int, int | None]:
    asked = [forwards_of_run(run) for run in tries]
    known = [each for each in asked if each is not None]
    made = sum(_forwards_made(store.run_folder(run)) for run in tries)
    return made, sum(known) if len(known) == len(asked) else None


def _forwards_made(folder: RunFolder) -> int:
    if folder.is_done:
        return folder.read_result().forwards
    return max((int(row["forwards"]) for row in _evaluations(folder)), default=0)


def _evaluations(folder: RunFolder) -> list[dict[str, Any]]:
    return read_jsonl(folder.evals, torn_tail=True) if folder.evals.exists() else []


def _score(tries: Sequence[RunSpec], store: Store, failed: frozenset[str]) -> tuple[str, float | None, float | None]:
    results: list[RunResult] = []
    for run in tries:
        folder = store.run_folder(run)
        if folder.is_done:
            results.append(folder.read_result())
            continue
        status = folder.read_status()
        return ("failed" if short_id(run) in failed or (status and status.state == "failed") else "missing"), None, None
    if any(result.outcome != "done" or result.dev is None for result in results):
        state = next((result.outcome for result in results if result.outcome != "done"), "failed")
        return state, None, None
    scored = [result.dev for result in results if result.dev is not None]
    if any(score.loss is None for score in scored):  # an accuracy of scores that are no numbers says nothing
        return "diverged", None, None
    losses = [score.loss for score in scored if score.loss is not None]
    loss = sum(losses) / len(losses) if len(losses) == len(scored) else None
    return "done", sum(score.accuracy for score in scored) / len(scored), loss
