"""How much of what an update intends reaches the stored weights, and what probing leaves behind.

For each dtype × remedy × direction: 500 moves of `lr·|g| = 1e-5` along new directions on one matrix with
w ~ N(0, 0.02²); `cosine` compares the displacement of what is stored (weight, and what the remedy keeps beside it) with
the intended one in fp64, `cosine_weight` that of the weight alone. `drift`: 1000 probes without an update, relative
change of the weights (0 means bit-identical).

    python benchmarks/precision.py
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import nn

from _result import write_result
from optaware.train.directions import Dense, InPlace, LowRank

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
REMEDIES = ("none", "stochastic", "residual", "master")


def layer(size: int, dtype: torch.dtype) -> nn.Module:
    model = nn.Sequential(nn.Linear(size, size, bias=False, dtype=dtype))
    draw = torch.randn(size, size, generator=torch.Generator().manual_seed(0))
    model[0].weight.data = (0.02 * draw).to(dtype)
    return model


def direction_of(kind: str, model: nn.Module, remedy: Any) -> Any:
    if kind == "low-rank":
        return LowRank(model, rank=8, refresh_every=10, seed=0, precision=remedy)
    if kind == "in-place":
        return InPlace(model, precision=remedy)
    return Dense(model, distribution=kind, precision=remedy)  # type: ignore[arg-type]


@torch.no_grad()
def row(kind: str, dtype: str, remedy: str, size: int, steps: int, probes: int) -> dict[str, Any]:
    model = layer(size, DTYPES[dtype])
    weight = model[0].weight
    start, before = weight.data.double(), weight.data.clone()
    direction = direction_of(kind, model, remedy)
    direction.begin(1)
    for probe in range(probes):
        with direction.at(probe, 1e-3):
            pass
    drift = float((weight.data.double() - start).norm() / start.norm())
    identical = torch.equal(weight.data, before)

    model = layer(size, DTYPES[dtype])
    weight = model[0].weight
    direction = direction_of(kind, model, remedy)
    intended = torch.zeros_like(start)
    for step in range(1, steps + 1):
        direction.begin(step)
        if kind == "in-place":
            with direction.at(step, 1e-3):
                pass
        intended += 1e-5 * direction.written_out(step)["0.weight"].double()
        direction.move(step, 1e-5)
    direction.settle()
    moved = weight.data.double() - start
    beside = direction.matrices[0].residual if kind == "low-rank" else direction.weights_of["0.weight"].beside
    whole = moved
    if beside is not None:
        whole = beside.double() - start if beside.dtype == torch.float32 else moved + beside.double() / 1024

    def cosine(value: torch.Tensor) -> float:
        return round(float(nn.functional.cosine_similarity(value.flatten(), intended.flatten(), dim=0)), 4)

    extra = 0 if beside is None else beside.numel() * beside.element_size()
    return {
        "case": f"{kind}, {dtype}",
        "variant": remedy,
        "cosine": cosine(whole),
        "cosine_weight": cosine(moved),
        "drift": drift,
        "bit_identical": identical,
        "extra_memory_bytes_per_parameter": extra / weight.numel(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="rows and columns of the matrix")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--probes", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for kind in ("gaussian", "rademacher", "low-rank", "in-place"):
        for dtype in DTYPES:
            for remedy in REMEDIES if dtype != "fp32" and kind != "in-place" else ("none",):
                rows.append(row(kind, dtype, remedy, options.size, options.steps, options.probes))
                print({key: value for key, value in rows[-1].items() if key != "bit_identical"})
    write_result("precision", rows, out=options.out, settings=vars(options) | {"out": None}, notes=[
        "in-place is the paper's own loop: a probe adds to the stored weights and subtracts again.",
        "lr * abs(g) = 1e-5; probes of scale 1e-3; w ~ N(0, 0.02^2).",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
