from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optaware.records import Prediction, RunSpec, Score
from optaware.stats import macro_f1

__all__ = ["run_metrics", "steps_to_target"]

_NEAR = 0.9


def steps_to_target(evaluations: Sequence[Mapping[str, Any]]) -> tuple[int | None, int | None]:
    """Step and forward passes of the first evaluation that was nine tenths of the way down to the lowest dev loss.

    The way goes from the first evaluation's loss to the lowest one; None when no evaluation had a finite loss. It says
    how soon a run was near what it reached, so it compares arms that reach about the same.

    Args:
        evaluations: Rows of `eval.jsonl`.
    """
    finite = [row for row in evaluations if row["loss"] is not None]
    if not finite:
        return None, None
    lowest = min(row["loss"] for row in finite)
    target = finite[0]["loss"] - _NEAR * (finite[0]["loss"] - lowest)
    first = next(row for row in finite if row["loss"] <= target)
    return int(first["step"]), int(first["forwards"])


def run_metrics(
    spec: RunSpec,
    predictions: Sequence[Prediction],
    test: Score | None,
    *,
    outcome: Any,
    evaluations: Sequence[Mapping[str, Any]],
    held_bytes: int,
    tokens_per_row: float,
    trained_parameters: int,
) -> dict[str, float | None]:
    """Figures of a run beside its accuracy, by canonical name.

    `f1` (macro) and `loss` of the test rows; `forwards`; `steps_to_target` and `forwards_to_target` (see
    `steps_to_target`); `diverged` (0 or 1); `training_peak_bytes`, the peak until training ended (the test rows are
    scored after it); `memory_extra_bytes`, that peak beyond what was held when training began
    (weights and libraries); `tokens_per_s`, tokens of training rows per second of training, each row counted once a
    step whatever the number of forward passes; `examples_per_s`; `trained_parameters`.

    Args:
        spec: The run.
        predictions: Of the test rows.
        test: Their score.
        outcome: How training ended (`TrainOutcome`).
        evaluations: Rows of `eval.jsonl`.
        held_bytes: Memory held before training.
        tokens_per_row: Mean tokens of a training row, prompt and right option.
        trained_parameters: Number of parameters that training moves.
    """
    steps, forwards = steps_to_target(evaluations)
    examples = outcome.steps * spec.schedule.batch_size
    trained = outcome.steps > 0 and outcome.train_s > 0
    scored = (
        {
            "f1": macro_f1([each.label for each in predictions], [each.predicted for each in predictions]),
            "loss": test.loss,
        }
        if test is not None
        else {}
    )
    return {
        **scored,
        "forwards": float(outcome.forwards),
        "steps_to_target": None if steps is None else float(steps),
        "forwards_to_target": None if forwards is None else float(forwards),
        "diverged": float(outcome.outcome == "diverged"),
        "training_peak_bytes": float(outcome.peak_memory_bytes) if trained else None,
        "memory_extra_bytes": float(max(0, outcome.peak_memory_bytes - held_bytes)) if trained else 0.0,
        "tokens_per_s": examples * tokens_per_row / outcome.train_s if trained else None,
        "examples_per_s": examples / outcome.train_s if trained else None,
        "trained_parameters": float(trained_parameters) if trained else 0.0,
    }
