"""Whole runs of the fused step: the same as the other engine's, replayed, resumed, given up when the check fails."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("triton")
if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs a GPU or TRITON_INTERPRET=1", allow_module_level=True)

from optaware.errors import InputError
from optaware.models import EncodedExample, OptionScorer
from optaware.records import Fast, MeZO, ZerothOrderConfig
from optaware.train import replay, train
from optaware.train._fused import fused_learner
from optaware.train._methods import make_learner
from optaware.train.gpu import FusedLearner, NotSupported
from optaware.train.gpu._lowrank import LowRankSides

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HEADS = {"head_dim": 32} if DEVICE == "cuda" else {}


class Special:
    pad_token_id, eos_token_id = 0, 0


def rows(count: int) -> list[EncodedExample]:
    source = torch.Generator().manual_seed(2)
    prompts = torch.randint(11, 60, (count, 5), generator=source).tolist()
    return [EncodedExample(f"r/{at}", tuple(prompt), ((5,), (6,)), at % 2) for at, prompt in enumerate(prompts)]


def run(
    kit: Any,
    folder: Path,
    method: ZerothOrderConfig,
    should_stop: Any = None,
    steps: int = 3,
    dtype: torch.dtype = torch.float32,
) -> Any:
    model = kit.llama(dtype, **HEADS).to(DEVICE)
    folder.mkdir(exist_ok=True)
    train(
        kit.run_spec(method, steps=steps, eval_every=2, batch_size=2),
        kit.RunFolder(folder),
        loaded=kit.Loaded(model, kit.Tokenizer()),
        scorer=OptionScorer(model, Special()),
        train_rows=rows(4),
        dev_rows=[],
        objective="options",
        should_stop=should_stop,
    )
    return model


def close(model: Any, other: Any, atol: float) -> bool:
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return all(torch.allclose(a, b, atol=atol) for a, b in pairs)


@pytest.mark.parametrize("method", [MeZO(lr=1e-2), Fast(rank=2, refresh_every=2, lr=1e-2)], ids=["dense", "low-rank"])
def test_a_run_is_the_other_engines_and_its_journal_gives_its_weights(
    kit: Any, tmp_path: Path, method: ZerothOrderConfig
) -> None:
    fused = run(kit, tmp_path / "fused", method.model_copy(update={"fused": "on"}))
    plain = run(kit, tmp_path / "plain", method.model_copy(update={"fused": "off"}))
    start = kit.llama(**HEADS).to(DEVICE)
    assert close(fused, plain, 2e-4)
    assert not close(fused, start, 2e-3)
    again = replay(tmp_path / "fused" / "journal.bin", start, base=None)
    assert again.exact
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), fused.parameters(), strict=True))


def test_a_stopped_run_goes_on_from_checkpoint_and_from_journal(kit: Any, tmp_path: Path) -> None:
    method = Fast(rank=2, refresh_every=2, lr=1e-2, fused="on")
    whole = run(kit, tmp_path / "whole", method)
    for name in ("checkpoint", "journal"):
        calls = iter(range(100))
        with pytest.raises(Exception, match="told to stop"):
            run(kit, tmp_path / name, method, should_stop=lambda calls=calls: next(calls) == 1)
        if name == "journal":
            shutil.rmtree(tmp_path / name / "checkpoint-last")
        model = run(kit, tmp_path / name, method)
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), whole.parameters(), strict=True)), name


# Triton's interpreter cannot multiply bf16 matrices.
HALF = torch.bfloat16 if DEVICE == "cuda" else torch.float16


def test_a_run_with_residuals_on_the_host_is_replayed_and_resumed(kit: Any, tmp_path: Path) -> None:
    host = Fast(rank=2, refresh_every=2, lr=1e-2, fused="on", host_residuals=True)
    whole = run(kit, tmp_path / "whole", host, dtype=HALF)
    start = kit.llama(HALF, **HEADS).to(DEVICE)
    assert not any(torch.equal(a, b) for a, b in zip(whole.parameters(), start.parameters(), strict=True) if a.ndim > 1)
    again = replay(tmp_path / "whole" / "journal.bin", start, base=None)
    assert again.exact
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), whole.parameters(), strict=True))
    calls = iter(range(100))
    with pytest.raises(Exception, match="told to stop"):
        run(kit, tmp_path / "stopped", host, should_stop=lambda: next(calls) == 2, dtype=HALF)
    model = run(kit, tmp_path / "stopped", host, dtype=HALF)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), whole.parameters(), strict=True))


def test_the_config_places_the_residuals_and_their_state_serves_all(kit: Any) -> None:
    method = Fast(rank=2, refresh_every=2, lr=1e-3, fused="on")
    host = method.model_copy(update={"host_residuals": True})
    models = [kit.llama(HALF, **HEADS).to(DEVICE) for _ in range(3)]
    first, second = (
        fused_learner(model, None, each, 3, 9)[0] for model, each in zip(models, (host, method), strict=False)
    )
    assert first is not None
    assert second is not None
    assert (first.weights_of.on_host, second.weights_of.on_host) == (True, False)
    residuals = first.weights_of.residuals.values()
    assert {each.device.type for each in residuals} == {"cpu"}
    assert all(each.is_pinned() for each in residuals) == (DEVICE == "cuda")
    hooks = make_learner(models[2], None, host.model_copy(update={"fused": "off"}), 3, 9)  # type: ignore[arg-type]
    for step in (1, 2, 3):
        first.repeat(step, (0.5,))
    first.settle()
    state = first.state()  # waits for the merge, which writes to the host's memory while the host goes on
    assert any(each.any() for each in residuals)
    for other in (second, hooks):
        other.load(first.weights(), state)
    for learner in (first, second, hooks):
        for step in (4, 5):
            learner.repeat(step, (0.5,))  # type: ignore[attr-defined]
        learner.settle()
    assert all(torch.equal(a, b) for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True))
    assert close(models[0], models[2], 2e-3)
    for learner in (first, second, hooks):
        learner.close()


def test_where_the_host_has_no_memory_the_run_goes_on_without(kit: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> Any:
        raise NotSupported("the host does not give 0.1 GB of pinned memory for the residuals")

    monkeypatch.setattr(LowRankSides, "_no_residuals", refuse)
    method = Fast(rank=2, host_residuals=True)
    learner, why = fused_learner(kit.llama(HALF, **HEADS).to(DEVICE), None, method, 3, 4)
    assert learner is None
    assert "pinned memory" in why
    with pytest.raises(InputError, match="fused-unsupported"):
        fused_learner(kit.llama(HALF, **HEADS).to(DEVICE), None, method.model_copy(update={"fused": "on"}), 3, 4)


def test_a_checkpoint_of_the_fused_step_serves_the_other_engine(kit: Any) -> None:
    for method in (MeZO(lr=1e-2), Fast(rank=2, refresh_every=2, lr=1e-2)):
        model, other = kit.llama(**HEADS).to(DEVICE), kit.llama(**HEADS).to(DEVICE)
        fused, why = fused_learner(model, None, method.model_copy(update={"fused": "on"}), 3, 4)
        assert fused is not None, why
        plain = make_learner(other, None, method, 3, 4)  # type: ignore[arg-type]
        fused.repeat(1, (0.5,))
        plain.load(fused.weights(), fused.state())
        fused.repeat(2, (0.5,))
        plain.repeat(2, (0.5,))  # type: ignore[attr-defined]
        for learner in (fused, plain):
            learner.settle()
        assert close(model, other, 1e-5)
        plain.close()


def test_a_step_that_fails_its_check_is_not_used(
    kit: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(FusedLearner, "probe_losses", lambda self, step, parts, eps=None: [0.1, 0.2])
    method = MeZO(lr=1e-2)
    with caplog.at_level(logging.INFO, "optaware"):
        fused = run(kit, tmp_path / "wrong", method, steps=1)
    plain = run(kit, tmp_path / "plain", method.model_copy(update={"fused": "off"}), steps=1)
    assert "check failed" in caplog.text
    assert all(torch.equal(a, b) for a, b in zip(fused.parameters(), plain.parameters(), strict=True))
