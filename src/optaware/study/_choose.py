"""Choosing a point of a grid: by dev rows alone, from what is on disk."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optaware.records import ModelRef, RunResult, RunSpec, short_id
from optaware.store import Store

__all__ = ["Choice", "Chosen", "Option", "choose", "chosen_runs"]


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
        scores: Per point: state (`done`, `failed`, `diverged`, `given-up`, `missing`), mean dev accuracy, mean dev
        loss.
    """

    choice: Choice
    option: Option | None
    complete: bool
    scores: tuple[tuple[str, float | None, float | None], ...]

    def to_json(self) -> dict[str, Any]:
        """The choice as a record for people and for the report."""
        choice = self.choice
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
                    "runs": [short_id(run) for run in option.tries],
                }
                for option, (state, accuracy, loss) in zip(choice.options, self.scores, strict=True)
            ],
        }


def choose(choice: Choice, store: Store, failed: frozenset[str] = frozenset()) -> Chosen:
    """Make a choice: highest mean dev accuracy, then lowest mean dev loss, then the first in the grid.

    Args:
        choice: The grid with its runs.
        store: Where the runs lie.
        failed: Ids of runs that have ended without a result; their points cannot be chosen.

    Returns:
        The choice made; without an option while a run is neither done nor failed.
    """
    scores = [_score(option.tries, store, failed) for option in choice.options]
    complete = all(state != "missing" for state, _, _ in scores)
    usable = [index for index, (state, _, _) in enumerate(scores) if state == "done"]
    if not complete or not usable:
        return Chosen(choice, None, complete, tuple(scores))

    def rank(index: int) -> tuple[float, float, int]:
        _, accuracy, loss = scores[index]
        return -(accuracy or 0.0), math.inf if loss is None else loss, index

    return Chosen(choice, choice.options[min(usable, key=rank)], True, tuple(scores))


def chosen_runs(choices: Sequence[Choice], store: Store) -> list[RunSpec]:
    """The runs that follow from the choices that can be made by now, each once."""
    runs = [run for choice in choices if (option := choose(choice, store).option) for run in option.finals]
    return list({short_id(run): run for run in runs}.values())


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
    losses = [score.loss for score in scored if score.loss is not None]
    loss = sum(losses) / len(losses) if len(losses) == len(scored) else None
    return "done", sum(score.accuracy for score in scored) / len(scored), loss
