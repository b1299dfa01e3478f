"""Noise of whole parameters or of some of their rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from optaware.train._seeds import derive_seed
from optaware.train.noise import _reference as reference

__all__ = ["Distribution", "noise_key", "reference_noise", "table"]

Distribution = Literal["gaussian", "rademacher"]

_DRAWS: dict[Distribution, Callable[[int, Tensor, int], Tensor]] = {
    "gaussian": reference.gaussian,
    "rademacher": reference.rademacher,
}


def noise_key(seed: int, name: str) -> int:
    """The 64-bit key of one parameter's noise: a function of the probe's seed and of the parameter's name."""
    return derive_seed(seed, name)


def table(shape: torch.Size | tuple[int, ...]) -> tuple[int, int]:
    """The rows and columns that a parameter's noise is laid out in: the last dimension and all others.

    Vectors and single numbers are one row. Row-wise, so that a few rows of an embedding can be drawn alone and a matrix
    that is split by rows over several devices draws each part where it lies.
    """
    if len(shape) < 2:
        return 1, (shape[0] if shape else 1)
    rows = 1
    for size in shape[:-1]:
        rows *= size
    return rows, shape[-1]


def reference_noise(
    key: int,
    shape: torch.Size | tuple[int, ...],
    distribution: Distribution,
    *,
    rows: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """z of one parameter as the definition has it, in torch operations on any device, fp32.

    Args:
        key: From `noise_key`.
        shape: Shape of the parameter.
        distribution: "gaussian" or "rademacher".
        rows: Only these rows, in this order, of the table that `table(shape)` describes.
        device: Where to draw, when `rows` does not say.

    Returns:
        (len(rows), columns) with `rows`, else the parameter's shape.
    """
    height, columns = table(shape)
    chosen = torch.arange(height, device=device) if rows is None else rows
    drawn = _DRAWS[distribution](key, chosen, columns)
    return drawn.reshape(tuple(shape)) if rows is None else drawn
