"""Dense Gaussian noise, one stream per parameter."""

from __future__ import annotations

import torch
from torch import Tensor

from optaware.train._seeds import derive_seed, generator

__all__ = ["gaussian_noise"]


def gaussian_noise(seed: int, name: str, shape: torch.Size, *, dtype: torch.dtype, device: torch.device) -> Tensor:
    """z ~ N(0, I) for one parameter.

    A function of `seed`, `name` and `shape` (and of the kind of device: CPU and CUDA generators differ), so parameters
    can be visited in any order and noise made again instead of stored.

    Args:
        seed: The probe's seed.
        name: The parameter's name in the model.
        shape: Shape of the result.
        dtype: What the noise is drawn in.
        device: Where it is drawn.
    """
    return torch.randn(shape, generator=generator(derive_seed(seed, name), device), dtype=dtype, device=device)
