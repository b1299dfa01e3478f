"""Score rows with a model's answer options and keep every prediction."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from optaware._io import read_jsonl, write_jsonl
from optaware.errors import InputError, ModelError, Problem, ProblemList
from optaware.records import Prediction, Score, parse_record

if TYPE_CHECKING:
    from optaware.models import EncodedExample

__all__ = ["Scorer", "evaluate", "read_predictions"]

Objective = Literal["options", "language-model"]


class Scorer(Protocol):
    """What evaluation needs of a model; `optaware.models.OptionScorer` is one."""

    def predict(self, examples: Sequence[EncodedExample], objective: Objective) -> tuple[list[Prediction], Score]:
        """Predictions in input order, and their score."""
        ...


def evaluate(
    scorer: Scorer, rows: Sequence[EncodedExample], objective: Objective, out: Path | None
) -> tuple[list[Prediction], Score]:
    """Score `rows` and write one prediction a line.

    The prediction is the option with the highest mean log-probability per token (nats, fp32). What comes back is
    checked before it is written: one prediction per row, in the same order, whose predicted option has the highest
    score, and an accuracy that counts them.

    Args:
        scorer: The model.
        rows: What is scored.
        objective: The task's training objective, in which the score's loss is given.
        out: The file to write (`RunFolder.predictions`), whole; None: write nothing.

    Returns:
        The predictions in the order of `rows`, and accuracy (0 to 1) and mean loss over them.

    Raises:
        InputError: There are no rows.
        ModelError: A score is not a finite number, or the predictions are not those of the rows.
        StorageError: `out` cannot be written.
    """
    if not rows:
        raise InputError.of("no-rows", "an empty list of rows", "nothing can be scored", "Give at least one row.")
    predictions, score = scorer.predict(rows, objective)
    _check(rows, predictions, score)
    if out is not None:
        write_jsonl(out, (prediction.to_json() for prediction in predictions))
    return predictions, score


def read_predictions(path: Path) -> list[Prediction]:
    """Read what `evaluate` wrote.

    Raises:
        InputError: The file is missing, or lines are wrong (all of them at once).
    """
    problems = ProblemList(str(path))
    predictions: list[Prediction] = []
    for number, row in enumerate(read_jsonl(path), start=1):
        with problems.collecting():
            predictions.append(parse_record(Prediction, row, f"{path}:{number}"))
    problems.raise_if_any()
    return predictions


def _check(rows: Sequence[EncodedExample], predictions: Sequence[Prediction], score: Score) -> None:
    if [row.id for row in rows] != [prediction.example_id for prediction in predictions]:
        raise _fault("the predictions are not those of the rows, in their order")
    for row, prediction in zip(rows, predictions, strict=True):
        name = prediction.example_id
        if not all(map(math.isfinite, prediction.scores)):
            raise ModelError.of(
                "score-not-finite",
                f"scores {list(prediction.scores)} of {name}",
                "they cannot be compared",
                "The weights hold values that are not finite, or overflow in this precision: use bf16 or fp32.",
            )
        if len(prediction.scores) != len(row.option_ids) or prediction.label != row.label:
            raise _fault(f"{name} has other options or another label than its row")
        if prediction.scores[prediction.predicted] < max(prediction.scores):
            raise _fault(f"{name} is not predicted as its best option")
    right = sum(prediction.correct for prediction in predictions)
    if score.n != len(predictions) or not math.isclose(score.accuracy, right / len(predictions), abs_tol=1e-9):
        raise _fault(f"the score says {score.accuracy} of {score.n}, the predictions {right} of {len(predictions)}")


def _fault(why: str) -> ModelError:
    given = "what the scorer returned"
    return ModelError(Problem("predictions-inconsistent", given, why, "This is a fault of the scorer."))
