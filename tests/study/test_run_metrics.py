from __future__ import annotations

from types import SimpleNamespace

import pytest

from optaware.records import DataRef, MeZO, ModelRef, Prediction, RunSpec, Schedule, Score
from optaware.study._run_metrics import run_metrics, steps_to_target


def row(step, loss):
    return {"step": step, "loss": loss, "forwards": 2 * step}


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([1.0, 0.6, 0.52, 0.5], (30, 60)),  # nine tenths of the way from 1.0 to 0.5 is 0.55
        ([None, 1.0, 0.5], (30, 60)),
        ([0.5, 0.7], (10, 20)),
        ([None], (None, None)),
        ([], (None, None)),
    ],
)
def test_the_step_at_which_a_run_is_near_its_best(losses, expected):
    assert steps_to_target([row(10 * (i + 1), loss) for i, loss in enumerate(losses)]) == expected


def test_figures_of_a_run_by_hand():
    spec = RunSpec(
        model=ModelRef(name="m"), data=DataRef(task="t"), method=MeZO(), schedule=Schedule(steps=10, batch_size=4)
    )
    outcome = SimpleNamespace(steps=10, train_s=2.0, forwards=20, outcome="done", peak_memory_bytes=150)
    scored = [
        Prediction(example_id=str(i), label=label, predicted=guess, scores=(0.0, 0.0))
        for i, (label, guess) in enumerate([(0, 0), (0, 1), (1, 1), (1, 1)])
    ]
    found = run_metrics(
        spec,
        scored,
        Score(accuracy=0.75, loss=0.4, n=4),
        outcome=outcome,
        evaluations=[row(10, 0.5)],
        held_bytes=100,
        tokens_per_row=30.0,
        trained_parameters=7,
    )
    assert found == {
        "f1": pytest.approx((2 / 3 + 4 / 5) / 2),
        "loss": 0.4,
        "forwards": 20.0,
        "steps_to_target": 10.0,
        "forwards_to_target": 20.0,
        "diverged": 0.0,
        "training_peak_bytes": 150.0,
        "memory_extra_bytes": 50.0,
        "tokens_per_s": 600.0,
        "examples_per_s": 20.0,
        "trained_parameters": 7.0,
    }
