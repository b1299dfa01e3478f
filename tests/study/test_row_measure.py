"""Figures of single rows: against autograd, restored weights, and nothing but the row itself in them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from optaware.models import OptionScorer, encode, load_model, tiny_model
from optaware.records import ModelRef, SearchSpec
from optaware.study._evidence import _signal, signal_to_noise
from optaware.study._row_measure import RowMeasure, open_measure
from optaware.tasks import get_task

TASK = get_task("sst2")
ROWS = [
    TASK.example({"sentence": text, "label": label}, "train", n, "row")
    for n, (text, label) in enumerate(
        [("a warm picture ", 1), ("never comes to life ", 0), ("slow , but touching . ", 1)]
    )
]


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    return load_model(ModelRef(name=str(tiny_model(tmp_path_factory.mktemp("tiny"))), dtype="fp32"), device="cpu")


def test_g_is_the_slope_along_random_directions(loaded):
    measure = RowMeasure(loaded, TASK, directions=150, eps=1e-3)
    found = measure.probe(ROWS)
    scorer = OptionScorer(loaded.model, loaded.tokenizer)
    for number, row in enumerate(encode([TASK.render(row) for row in ROWS], loaded.tokenizer, 1024)):
        loaded.model.zero_grad()
        loss = scorer.loss([row], TASK.loss)
        loss.backward()
        squared = sum(float((each.grad**2).sum()) for each in loaded.model.parameters() if each.grad is not None)
        assert found.loss[number] == pytest.approx(float(loss.detach()), rel=1e-4)
        # The mean of 150 squares of a normal variable has a standard deviation of 12 % of its expectation.
        assert np.mean(found.g[number] ** 2) == pytest.approx(squared, rel=0.5)
        assert abs(found.g[number].mean()) < 0.4 * np.sqrt(squared)
    loaded.model.zero_grad()


def test_weights_are_restored_and_rows_do_not_see_each_other(loaded):
    before = {name: each.detach().clone() for name, each in loaded.model.named_parameters()}
    measure = RowMeasure(loaded, TASK, directions=3)
    together = measure(ROWS)
    assert all(torch.equal(before[name], each) for name, each in loaded.model.named_parameters())
    for row, figures in zip(ROWS, together, strict=True):
        (alone,) = measure([row])
        assert set(alone) == {"loss", "g_abs", "g_variance", "curvature", "curvature_abs", "perplexity"}
        for name in ("loss", "g_abs", "g_variance", "perplexity"):
            assert alone[name] == pytest.approx(figures[name], rel=0.05)
    assert measure.forwards_per_row == 8
    assert measure.id != RowMeasure(loaded, TASK, directions=4).id


def test_a_search_opens_its_measure(loaded, tmp_path):
    assert open_measure(None, TASK) is None
    assert open_measure(SearchSpec(prefer="first"), TASK) is None
    ref = ModelRef(name=str(tiny_model(tmp_path / "tiny")), dtype="fp32")
    opened = open_measure(SearchSpec(model=ref, directions=2), TASK)
    assert opened.directions == 2


def test_signal_to_noise_knows_signal_from_noise():
    draw = np.random.default_rng(0)
    noise = draw.normal(size=(2000, 32))
    assert signal_to_noise(noise, 16) < 0.2
    assert signal_to_noise(noise + 0.5, 16) == pytest.approx(16 * 0.25, rel=0.1)
    few = noise[:100]
    steadier = _signal(few + 0.3, few * 0.7 + 0.3, 16, draw).difference
    assert steadier.low > 0
    same = _signal(few + 0.3, draw.permutation(few) + 0.3, 16, draw).difference
    assert same.low < 0 < same.high
