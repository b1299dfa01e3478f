"""Predictions are written whole, read back the same, and not believed when they do not fit the rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from optaware.errors import InputError, ModelError, StorageError
from optaware.evaluate import evaluate, read_predictions
from optaware.records import Prediction, Score


@dataclass(frozen=True)
class Row:
    id: str
    prompt_ids: tuple[int, ...]
    option_ids: tuple[tuple[int, ...], ...]
    label: int


ROWS = [Row("t/test/0", (1, 2), ((3,), (4,)), 0), Row("t/test/1", (1,), ((3,), (4, 5), (6,)), 2)]
SCORES = {"t/test/0": (-0.5, -0.25), "t/test/1": (-3.0, -2.0, -1.0)}


class Scripted:
    """A scorer with given scores; `spoil` changes what it returns."""

    def __init__(
        self, spoil: Callable[[list[Prediction], Score], tuple[list[Prediction], Score]] | None = None
    ) -> None:
        self.spoil = spoil
        self.objective: str | None = None

    def predict(self, examples: Sequence[Any], objective: str) -> tuple[list[Prediction], Score]:
        self.objective = objective
        found = [
            Prediction(
                example_id=row.id,
                label=row.label,
                predicted=SCORES[row.id].index(max(SCORES[row.id])),
                scores=SCORES[row.id],
            )
            for row in examples
        ]
        right = sum(prediction.correct for prediction in found)
        score = Score(accuracy=right / len(found), loss=0.7, n=len(found))
        return self.spoil(found, score) if self.spoil else (found, score)


def test_predictions_are_returned_and_written(tmp_path: Path) -> None:
    out = tmp_path / "run" / "predictions.jsonl"
    scorer = Scripted()
    predictions, score = evaluate(scorer, ROWS, "language-model", out)
    assert scorer.objective == "language-model"
    assert score == Score(accuracy=0.5, loss=0.7, n=2)
    assert [prediction.predicted for prediction in predictions] == [1, 2]
    assert read_predictions(out) == predictions
    assert [json.loads(line)["example_id"] for line in out.read_text().splitlines()] == ["t/test/0", "t/test/1"]
    assert [file.name for file in out.parent.iterdir()] == ["predictions.jsonl"]


def test_nothing_is_written_without_a_path(tmp_path: Path) -> None:
    evaluate(Scripted(), ROWS, "options", None)
    assert list(tmp_path.iterdir()) == []


def test_no_rows() -> None:
    with pytest.raises(InputError, match="no-rows"):
        evaluate(Scripted(), [], "options", None)


def changed(index: int, **values: Any) -> Callable[[list[Prediction], Score], tuple[list[Prediction], Score]]:
    def spoil(found: list[Prediction], score: Score) -> tuple[list[Prediction], Score]:
        found[index] = found[index].model_copy(update=values)
        return found, score

    return spoil


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (lambda found, score: (found[::-1], score), "predictions-inconsistent"),
        (lambda found, score: (found[:1], score), "predictions-inconsistent"),
        (lambda found, score: (found, score.model_copy(update={"accuracy": 1.0})), "predictions-inconsistent"),
        (lambda found, score: (found, score.model_copy(update={"n": 3})), "predictions-inconsistent"),
        # Both swapped: as many are right as before, so only the scores tell.
        (
            lambda found, score: changed(1, predicted=0)(*changed(0, predicted=0)(found, score)),
            "predictions-inconsistent",
        ),
        (changed(0, label=1), "predictions-inconsistent"),
        (changed(1, scores=(-3.0, -1.0)), "predictions-inconsistent"),
        (changed(1, scores=(-3.0, float("nan"), -1.0)), "score-not-finite"),
        (changed(1, scores=(-3.0, float("-inf"), -1.0)), "score-not-finite"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, spoil: Any, code: str) -> None:
    out = tmp_path / "predictions.jsonl"
    with pytest.raises(ModelError) as caught:
        evaluate(Scripted(spoil), ROWS, "options", out)
    assert caught.value.code == code
    assert not out.exists()


def test_a_path_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "predictions.jsonl").mkdir()
    with pytest.raises(StorageError):
        evaluate(Scripted(), ROWS, "options", tmp_path / "predictions.jsonl")


def test_faulty_predictions_are_told_together(tmp_path: Path) -> None:
    path = tmp_path / "predictions.jsonl"
    path.write_text('{"example_id": "a", "label": 0}\n{"example_id": 3, "label": 0, "predicted": 0, "scores": [1]}\n')
    with pytest.raises(InputError) as caught:
        read_predictions(path)
    assert {problem.where for problem in caught.value.problems} == {f"{path}:1", f"{path}:2"}
