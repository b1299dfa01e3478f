"""The journal of `ZerothOrder`: what is written, what is made again from it, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from optaware.train import ZerothOrder, journal_probes, replay

torch.set_num_threads(1)

LOW = {"lr": 1e-3, "rank": 2, "refresh_every": 2}
METHODS: dict[str, tuple[Any, dict[str, Any]]] = {
    "fast": ("fast", {**LOW, "queries": 2}),
    "dense": ("mezo", {"lr": 1e-4, "weight_decay": 0.1}),
    "rademacher": ("fzoo", {"lr": 1e-3, "queries": 3}),
    "masked": ("sparse-mezo", {"lr": 1e-4}),
    "random-mask": ("mezo", {"lr": 1e-4, "mask": "random"}),
    "layers": ("mezo", {"lr": 1e-4, "layers": 1}),
    "stored-noise": ("mezo", {"lr": 1e-4, "noise": "store"}),
    "dense-adam": ("mezo-adam", {"lr": 1e-4, "window": 3}),
    "one-sided": ("lozo", {**LOW, "estimator": "one-sided", "normalise": True, "queries": 3}),
    "one-point": ("lozo", {**LOW, "estimator": "one-point"}),
    "residual": ("lozo", {**LOW, "estimator": "one-point-residual", "queries": 2}),
    "momentum": ("lozo", {**LOW, "update": "momentum", "clip": 0.5}),
    "adam": ("lozo", {**LOW, "update": "adam", "weight_decay": 0.1}),
    "sign": ("lozo", {**LOW, "update": "sign"}),
    "scheduled": ("fast", {**LOW, "queries": 3, "query_schedule": "linear", "eps_schedule": "linear", "steps": 8}),
}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load(folder: Path, dtype: torch.dtype = torch.float32) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)


def batches(count: int, rows: int = 2) -> list[Tensor]:
    source = torch.Generator().manual_seed(5)
    return [torch.randint(0, 250, (rows, 7), generator=source) for _ in range(count)]


def loss_of(model: Any, ids: Tensor) -> Tensor:
    return torch.nn.functional.cross_entropy(
        model(input_ids=ids).logits[:, :-1].float().flatten(0, 1), ids[:, 1:].flatten()
    )


class Killed(Exception):
    pass


def loop(model: Any, path: Path, method: tuple[Any, dict[str, Any]], *, kill: int = 99, resume: bool = False) -> Any:
    """Eight steps with a scheduler, accumulation, a look at the model after step 3, and one loss that is not finite."""
    name, changes = method
    optimizer = ZerothOrder(model, name, seed=3, journal=path, resume=resume, **changes)
    scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=6)
    calls = 0

    def closure(ids: Tensor, step: int) -> Any:
        nonlocal calls
        calls += 1
        return loss_of(model, ids) if step != 5 else torch.tensor(torch.nan)

    for step, ids in enumerate(batches(8), start=1):
        if step == kill:
            raise Killed
        optimizer.estimate(lambda ids=ids, step=step: closure(ids[:1], step))
        optimizer.estimate(lambda ids=ids, step=step: closure(ids[1:], step))
        optimizer.step()
        scheduler.step()
        if step == 3:
            model(input_ids=ids)
    optimizer.close()
    optimizer.calls = calls
    return optimizer


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: each.clone() for name, each in model.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", METHODS)
def test_the_base_model_and_the_journal_are_the_training(
    tiny_model_dir: Path, tmp_path: Path, name: str, dtype: str
) -> None:
    path = tmp_path / "journal.bin"
    model = load(tiny_model_dir, DTYPES[dtype])
    base = weights(model)
    optimizer = loop(model, path, METHODS[name])
    again = load(tiny_model_dir, DTYPES[dtype])
    outcome = replay(path, again)
    assert (outcome.step, outcome.exact, outcome.bound, outcome.identical) == (8, True, 0.0, True)
    assert same(weights(again), weights(model))
    assert not same(base, weights(model))
    assert not any(module._forward_hooks for module in again.modules())
    probes = [each for each in journal_probes(path) if each.step == 8]
    assert tuple(each.coefficient for each in probes) == optimizer.probe.coefficients
    assert probes[0].lr == optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", METHODS)
def test_a_loop_that_was_killed_goes_on_from_its_journal(
    tiny_model_dir: Path, tmp_path: Path, name: str, dtype: str
) -> None:
    whole = load(tiny_model_dir, DTYPES[dtype])
    expected = loop(whole, tmp_path / "whole.bin", METHODS[name])
    path = tmp_path / "journal.bin"
    with pytest.raises(Killed):
        loop(load(tiny_model_dir, DTYPES[dtype]), path, METHODS[name], kill=7)
    path.write_bytes(path.read_bytes() + b"xx")  # a step torn by the kill
    model = load(tiny_model_dir, DTYPES[dtype])
    again = loop(model, path, METHODS[name], resume=True)
    assert same(weights(model), weights(whole))
    assert path.read_bytes() == (tmp_path / "whole.bin").read_bytes()
    assert again.calls < expected.calls / 2
    assert (again.forwards, again.skipped) == (expected.forwards, expected.skipped)
