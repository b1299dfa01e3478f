"""The passes over the weights, compiled for a Hopper GPU without one: they load and store 16 bytes at a time."""

from __future__ import annotations

import os
from typing import Any

import pytest

pytest.importorskip("triton")
if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter compiles nothing", allow_module_level=True)

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from optaware.train.gpu._lowrank import _merge
from optaware.train.gpu._passes import move, show

TILED = {"SITES": 9, "SOURCE": tl.bfloat16, "ALIGN": 16, "BLOCK": 1024, "TURNS": 8, "SIGNS": False}
MERGED = {
    "SOURCE": tl.bfloat16,
    "RANK": 8,
    "RANK_BLOCK": 16,
    "PRECISION": "tf32x3",
    "ALIGN": 16,
    "BLOCK": 128,
    "TURNS": 32,
}
TYPES = {
    "tiles": "*i32",
    "keys": "*i32",
    "query": "*i32",
    "seeds": "*i32",
    "scale": "*fp64",
    "out": "*bf16",
    "amounts": "*fp32",
    "decay": "*fp32",
    "learnt": "*fp32",
    "other_sign": "i32",
    "out_stride": "i32",
    "queries": "i32",
    "stride": "i32",
}
"""Of the arguments; the others are tables of int64."""


@pytest.mark.parametrize(
    ("kernel", "constants"),
    [(show, TILED), (move, TILED | {"ROUNDING": 2}), (_merge, MERGED | {"ROUNDING": 2})],
    ids=["show", "move", "merge"],
)
def test_weights_are_read_and_written_16_bytes_at_a_time(kernel: Any, constants: dict[str, Any]) -> None:
    names = kernel.arg_names
    types = {name: "constexpr" if name in constants else TYPES.get(name, "*i64") for name in names}
    even = {(at,): [["tt.divisibility", 16]] for at, name in enumerate(names) if name not in (*constants, "queries")}
    source = ASTSource(kernel, types, {(names.index(name),): value for name, value in constants.items()}, even)
    ptx = triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
    assert "ld.global.v4" in ptx
    assert "st.global.v4" in ptx
    assert "st.global.b16" not in ptx
    assert "ld.global.b16" not in ptx or kernel is _merge  # which gathers its small factors
