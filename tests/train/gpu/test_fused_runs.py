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

from optaware.models import EncodedExample, OptionScorer
from optaware.records import Fast, MeZO, ZerothOrderConfig
from optaware.train import replay, train
from optaware.train._fused import fused_learner
from optaware.train._methods import make_learner
from optaware.train.gpu import FusedLearner

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
HEADS = {"head_dim": 32} if DEVICE == "cuda" else {}


class Special:
    pad_token_id, eos_token_id = 0, 0


def rows(count: int) -> list[EncodedExample]:
    source = torch.Generator().manual_seed(2)
    prompts = torch.randint(11, 60, (count, 5), generator=source).tolist()
    return [EncodedExample(f"r/{at}", tuple(prompt), ((5,), (6,)), at % 2) for at, prompt in enumerate(prompts)]


def run(kit: Any, folder: Path, method: ZerothOrderConfig, should_stop: Any = None, steps: int = 3) -> Any:
    model = kit.llama(**HEADS).to(DEVICE)
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
