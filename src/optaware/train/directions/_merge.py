"""Adding to weights that are stored in fewer bits than the sum needs."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["merge_product"]

RESIDUAL_SCALE = 1024.0
"""Residuals are stored times this, so that fp16 keeps them out of its subnormal range; bf16 does not mind."""

_BLOCKS = {"cpu": 1 << 17}
"""Entries that are summed at a time: on a CPU their fp32 copies (0.5 MB) stay in a core's cache, which makes a merge
three times as fast as blocks of 4 MB; elsewhere fewer and larger operations are faster."""

_BLOCK = 1 << 24


def merge_product(weight: Tensor, residual: Tensor | None, left: Tensor, right: Tensor, factor: float) -> None:
    """`weight + residual/1024 ← factor·(weight + residual/1024) + left·rightᵀ`, in place.

    The sum is taken in fp32; `weight` becomes its rounding and `residual` what the rounding took off (error feedback,
    as in Kahan summation). Together they carry about 16 bits of mantissa for bf16 (21 for fp16) at 2 bytes a parameter,
    half of what an fp32 master copy takes beside the weights, and what one merge cannot store the next one still has.

    Args:
        weight: (m, n), any floating dtype.
        residual: (m, n) in the dtype of `weight`; None when `weight` is fp32 or wider.
        left: (m, r), fp32.
        right: (n, r), fp32.
        factor: Scale of what is there (weight decay); 1 otherwise.
    """
    if residual is None:
        weight.addmm_(left.to(weight.dtype), right.t().to(weight.dtype), beta=factor)
        return
    rows = max(1, _BLOCKS.get(weight.device.type, _BLOCK) // weight.shape[1])
    for start in range(0, weight.shape[0], rows):
        part = slice(start, start + rows)
        total = weight[part].to(torch.float32)
        total.add_(residual[part], alpha=1.0 / RESIDUAL_SCALE)
        total.addmm_(left[part], right.t(), beta=factor)
        weight[part].copy_(total)
        total.sub_(weight[part]).mul_(RESIDUAL_SCALE)
        residual[part].copy_(total)
