"""Dense Gaussian noise, one stream per parameter."""

from __future__ import annotations

import torch
from torch import Tensor

from optaware.train._seeds import derive_seed

__all__ = ["gaussian_noise"]


def gaussian_noise(seed: int, name: str, shape: torch.Size, *, dtype: torch.dtype, source: torch.Generator) -> Tensor:
    """z ~ N(0, I) for one parameter.

    A function of `seed`, `name` and `shape` (and of the kind of device: CPU and CUDA generators differ), so parameters
    can be visited in any order and noise made again instead of stored.

    Args:
        seed: The probe's seed.
        name: The parameter's name in the model.
        shape: Shape of the result.
        dtype: What the noise is drawn in.
        source: What to draw with; it is seeded anew, and its device is where the noise is drawn.
    """
    source.manual_seed(derive_seed(seed, name))
    return torch.randn(shape, generator=source, dtype=dtype, device=source.device)
