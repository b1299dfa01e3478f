"""Runs whose numbers are not finite: said in their records, left out of every choice."""

from __future__ import annotations

import math
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from optaware._io import read_json
from optaware.evaluate import evaluate
from optaware.records import ModelRef, RunStatus, Score, parse_record
from optaware.report import load_report_run
from optaware.store import Store
from optaware.study import Choice, Option, choose, load_study, plan_study, train_one


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, None])
def test_a_loss_that_is_not_finite_is_none_in_a_record(loss):
    assert Score(accuracy=0.5, loss=loss, n=2).loss is None
    assert parse_record(Score, {"accuracy": 0.5, "loss": None, "n": 2}, "x").loss is None


@pytest.fixture
def runs(write_study, tmp_path):
    study = load_study(write_study(tmp_path / "study.yaml", "http://127.0.0.1:1/v1"))
    graph = plan_study(study)
    return [run for run in graph.runs if run.method.name == "mezo" and run.corpus_id is None]


@pytest.mark.parametrize(
    ("bad", "state"),
    [
        ({"outcome": "done", "dev": Score(accuracy=1.0, loss=math.nan, n=9)}, "diverged"),
        ({"outcome": "diverged", "dev": Score(accuracy=1.0, loss=0.1, n=9)}, "diverged"),
        ({"outcome": "diverged", "dev": None}, "diverged"),
    ],
)
def test_a_point_whose_numbers_are_not_finite_is_never_chosen(runs, bad, state):
    results = iter([bad, {"outcome": "done", "dev": Score(accuracy=0.1, loss=9.0, n=9)}])
    folders = {}

    def run_folder(run):
        if id(run) not in folders:
            folders[id(run)] = SimpleNamespace(**next(results))
        return SimpleNamespace(is_done=True, read_result=lambda: folders[id(run)])

    points = [run.model_copy() for run in (runs[0], runs[0])]
    options = tuple(Option(str(n), (run,), ()) for n, run in enumerate(points))
    choice = Choice(runs[0].model, "t", "m", "original", None, options)
    chosen = choose(choice, SimpleNamespace(run_folder=run_folder))
    assert chosen.scores[0][0] == state
    assert chosen.option.words == "1"


@pytest.fixture(scope="module")
def overflowing(tiny_model_dir, tmp_path_factory):
    """The tiny model with an output layer that overflows fp16, though its weights are finite."""
    folder = tmp_path_factory.mktemp("overflowing") / "model"
    shutil.copytree(tiny_model_dir, folder)
    (path,) = folder.glob("*.safetensors")
    weights = load_file(path)
    name = next(name for name in weights if name.endswith("norm.weight") and "layers" not in name)
    weights[name] = torch.full_like(weights[name], 6.0e4)
    save_file(weights, path, metadata={"format": "pt"})
    return folder


def test_a_run_that_overflows_in_fp16_has_diverged_and_is_no_failure(runs, overflowing, tmp_path):
    spec = runs[0].model_copy(update={"model": ModelRef(name=str(overflowing), dtype="fp16")})
    store = Store(tmp_path / "store")
    result = train_one(spec, store)
    assert (result.outcome, result.dev, result.test) == ("diverged", None, None)
    assert "no test score" in result.detail
    folder = store.run_folder(spec)
    assert folder.is_done
    assert parse_record(RunStatus, read_json(folder.status), "status").state == "done"
    assert not folder.predictions.exists()
    assert result.metrics["diverged"] == 1.0
    run = load_report_run(folder.path)
    assert run.state == "diverged"
    assert run.result.skipped == run.result.steps > 0


def test_the_untrained_model_that_overflows_is_a_fault_that_says_what_to_do(overflowing):
    from optaware.errors import ModelError
    from optaware.models import OptionScorer, encode, load_model
    from optaware.records import RenderedExample

    loaded = load_model(ModelRef(name=str(overflowing), dtype="fp16"))
    rows = encode([RenderedExample(id="a", prompt="p", options=(" x", " y"), label=0)], loaded.tokenizer, 32)
    with pytest.raises(ModelError, match="use bf16 or fp32"):
        evaluate(OptionScorer(loaded.model, loaded.tokenizer), rows, "options", None)
