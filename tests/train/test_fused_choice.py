"""When a run's steps are fused, and what is said when they are not."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from optaware.errors import InputError
from optaware.records import Fast, FOFull, MeZO
from optaware.train import MetricObjective, TaskObjective, train
from optaware.train._fused import fused_learner, obstacle

CUDA, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"estimator": "one-sided"}, "estimator"),
        ({"update": "adam"}, "update"),
        ({"mask": "random"}, "mask"),
        ({"layers": 1}, "layers"),
        ({"include": ("*.weight",)}, "include"),
        ({"noise": "store"}, "noise"),
        ({"apply": "in-place"}, "apply"),
        ({"normalise": True, "queries": 2}, "normalise"),
        ({"parameters": "lora"}, "parameters"),
        ({"batching": "off"}, "batching"),
        ({"precision": "master"}, "precision"),
    ],
)
def test_what_a_method_has_that_cannot_be_fused_is_named(changes: dict[str, Any], part: str) -> None:
    assert part in str(obstacle(MeZO(**changes), None, CUDA))


def test_other_objectives_and_processors_are_named() -> None:
    pytest.importorskip("triton")
    assert obstacle(MeZO(), TaskObjective(None, "options"), CUDA) is None
    assert obstacle(MeZO(direction="rademacher", queries=4, clip=1.0), None, CUDA) is None
    assert obstacle(Fast(host_residuals=True), None, CUDA) is None
    assert "losses of answer options" in str(obstacle(MeZO(), MetricObjective(None, "accuracy"), CUDA))


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_without_a_gpu_the_run_is_made_by_the_other_engine(
    kit: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert "on cpu" in str(obstacle(Fast(), None, CPU))
    model = kit.llama()
    assert fused_learner(model, None, FOFull(), 0, 1)[0] is None
    with pytest.raises(InputError, match="fused-unsupported") as caught:
        fused_learner(model, None, Fast(fused="on"), 0, 1)
    assert "not on a CUDA device" in str(caught.value)
    spec = kit.run_spec(Fast(), steps=2, eval_every=2)
    folder = kit.RunFolder(tmp_path)
    folder.resolved.write_text('{"device": "cpu"}')
    train(
        spec,
        folder,
        loaded=kit.Loaded(model, kit.Tokenizer()),
        scorer=kit.Scorer(model),
        train_rows=kit.rows(8),
        dev_rows=kit.rows(4, 1),
        objective="options",
    )
    assert '"step": "not fused: the model is on cpu, not on a CUDA device"' in folder.resolved.read_text()


def test_fused_off_is_kept_to(kit: Any) -> None:
    learner, why = fused_learner(kit.llama(), None, Fast(fused="off"), 0, 1)
    assert learner is None
    assert "fused: off" in why
