"""The compiled passes give the bits of the torch form."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from optaware.train import noise
from optaware.train.noise import _passes

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
MASKS = {"all": noise.NO_MASK, "small": noise.Mask(1, 0.5), "random": noise.Mask(2, 20_000, 77)}
KEYS = (2**63 + 5, 12345)


def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_passes, "_jit", lambda: None)


@pytest.mark.parametrize("distribution", ["gaussian", "rademacher"])
@pytest.mark.parametrize("columns", [1, 2, 31, 33, 64, 577])
def test_fill(distribution: Any, columns: int) -> None:
    shape = (5, columns)
    drawn = noise.fill(KEYS[0], shape, distribution)
    assert torch.equal(drawn, noise.reference_noise(KEYS[0], shape, distribution))
    rows = torch.tensor([4, 1, 1])
    assert torch.equal(noise.fill(KEYS[0], shape, distribution, rows=rows), drawn[rows])


def test_fill_of_every_radius_and_angle_is_the_definition() -> None:
    shape = (3000, 257)
    assert torch.equal(noise.fill(3, shape, "gaussian"), noise.reference_noise(3, shape, "gaussian"))


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("distribution", ["gaussian", "rademacher"])
def test_tables_side_by_side_are_those_drawn_alone(
    distribution: Any, dtype: torch.dtype, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths, keys = (1, 2, 31, 33, 64, 577), tuple(2**64 - 1 - 10**17 * index for index in range(6))
    if not fast:
        monkeypatch.setattr(_passes, "_jit", lambda: None)
    many = noise.SideBySide(widths, torch.device("cpu"))
    for height in (1, 5):
        alone = [
            noise.reference_noise(key, (height, width), distribution) for key, width in zip(keys, widths, strict=True)
        ]
        out = torch.full((height, sum(widths)), torch.nan, dtype=dtype)
        many.fill_into(out, keys, distribution)
        assert torch.equal(out, torch.cat(alone, dim=1).to(dtype))
        many.fill_into(out, keys, distribution, [False, True, False, True, False, False])
        for index in (1, 3):
            alone[index].zero_()
        assert torch.equal(out, torch.cat(alone, dim=1).to(dtype))


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("distribution", ["gaussian", "rademacher"])
def test_show_and_move(
    distribution: Any, dtype: torch.dtype, mask: str, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = torch.randn(9, 67, generator=torch.Generator().manual_seed(0)).to(dtype)
    start[0, :3] = torch.tensor([1e-6, -3e-5, 0.0])
    made = []
    monkeypatch.setattr(_passes, "_LEAST", 100)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    for fast in (True, False):
        if not fast:
            plain(monkeypatch)
        assert noise.compiled(start) == fast
        probes = [(KEYS[0], 1e-3), (KEYS[0], -1e-3), (KEYS[1], 0.5)]
        whole = torch.empty(3, *start.shape, dtype=dtype)
        noise.show(start, whole, probes, distribution, MASKS[mask])
        made.append(whole)
        for remedy in ("none", "residual", "stochastic", "master"):
            weight = start.clone()
            beside = {"residual": torch.zeros_like(start), "master": start.float().clone()}.get(remedy)
            for turn in range(3):
                moves = [(KEYS[0], 1e-3), (KEYS[1], -2e-5)]
                noise.move(weight, beside, moves, 0.99, distribution, MASKS[mask], remedy, turn)  # type: ignore[arg-type]
            made += [weight] if beside is None else [weight, beside]
    half = len(made) // 2
    for one, two in zip(made[:half], made[half:], strict=True):
        assert torch.equal(one, two)
    z = noise.masked(noise.reference_noise(KEYS[1], start.shape, distribution), start, MASKS[mask])
    assert torch.equal(made[0][2], (start.float() + 0.5 * z).to(dtype))
    assert not torch.equal(made[0][2], start)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_stochastic_rounding_is_unbiased(dtype: torch.dtype) -> None:
    values = torch.tensor([1.0 + 1e-4, -0.02 - 3e-6, 3.3e-5, -7e-8]).repeat(20_000, 1)
    weight = torch.zeros(values.shape, dtype=dtype)
    noise.add(weight, None, values, 1.0, "stochastic", 5)
    spread = weight.double().std(0) / len(values) ** 0.5
    assert ((weight.double().mean(0) - values[0].double()).abs() <= 5 * spread + 1e-12).all()
    assert (spread > 0).any()
