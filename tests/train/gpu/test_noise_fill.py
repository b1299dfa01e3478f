"""The Triton fill has the bits of the definition."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

pytest.importorskip("triton")
if not torch.cuda.is_available() and os.environ.get("TRITON_INTERPRET") != "1":
    # Triton must know when it is first imported, which other tests may have done: test_interpreted.py runs this file.
    pytest.skip("needs a GPU or TRITON_INTERPRET=1", allow_module_level=True)

from optaware.train.noise import _triton, fill, reference_noise

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
KEYS = (2**63 + 5, 12345, 0xFFFFFFFF80000000)


@pytest.mark.parametrize("distribution", ["gaussian", "rademacher"])
@pytest.mark.parametrize("columns", [1, 2, 31, 33, 64, 577, 4100])
def test_fill_is_the_definition(distribution: Any, columns: int) -> None:
    signs = distribution == "rademacher"
    for key in KEYS:
        want = reference_noise(key, (5, columns), distribution)
        made = _triton.fill(key, 5, columns, signs=signs, device=DEVICE)
        assert torch.equal(made.cpu(), want)
        rows = torch.tensor([4, 1, 1], device=DEVICE)
        assert torch.equal(_triton.fill(key, rows, columns, signs=signs, device=DEVICE).cpu(), want[[4, 1, 1]])


@pytest.mark.skipif(DEVICE.type != "cuda", reason="the interpreter is too slow for so many numbers")
def test_fill_of_every_radius_and_angle_on_the_card() -> None:
    for shape in ((3000, 2570), (7_000_001,), (3, 1000, 64)):
        drawn = fill(3, shape, "gaussian", device=DEVICE)
        assert drawn.shape == shape
        assert torch.equal(drawn.cpu(), fill(3, shape, "gaussian"))
