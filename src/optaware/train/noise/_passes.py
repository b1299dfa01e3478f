"""Passes over a parameter: fill with noise, show perturbed copies, move along noise; compiled where that can be."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from optaware.train.noise import _reference as reference
from optaware.train.noise._draw import Distribution, reference_noise, table

__all__ = ["NO_MASK", "RESIDUAL_SCALE", "Mask", "Remedy", "add", "compiled", "fill", "jitted", "masked", "move", "show"]

Remedy = Literal["none", "residual", "stochastic", "master"]

RESIDUAL_SCALE = 1024.0
"""Residuals are stored times this, so that fp16 keeps them out of its subnormal range; bf16 does not mind."""

_REMEDIES: dict[Remedy, int] = {"none": 0, "residual": 1, "stochastic": 2, "master": 3}
_BLOCK = 1 << 20
"""Entries that the torch form handles at a time."""

_LEAST = 1 << 17
"""Entries that are worth a thread of their own."""


@dataclass(frozen=True)
class Mask:
    """Which entries of z are left in.

    Attributes:
        kind: 0 all, 1 those of weights with `abs(w) <= limit`, 2 a random share.
        limit: The threshold, or the share times 65536.
        key: Of the random share.
    """

    kind: int = 0
    limit: float = 0.0
    key: int = 0


NO_MASK = Mask()


@cache
def _jit() -> Any:
    """The compiled kernels; None without numba or with `OPTAWARE_NO_JIT` set."""
    if os.environ.get("OPTAWARE_NO_JIT"):
        return None
    try:
        from optaware.train.noise import _jit
    except ImportError:
        return None
    return _jit


@cache
def _triton() -> Any:
    """The kernels for CUDA tensors; None without Triton or with `OPTAWARE_NO_JIT` set."""
    if os.environ.get("OPTAWARE_NO_JIT"):
        return None
    try:
        from optaware.train.noise import _triton
    except ImportError:
        return None
    return _triton


def jitted() -> bool:
    """Whether there are compiled kernels for tensors on the CPU."""
    return _jit() is not None


def compiled(weight: Tensor) -> bool:
    """Whether passes over this tensor run as compiled code."""
    plain = weight.device.type == "cpu" and weight.is_contiguous()
    return plain and weight.dtype in (torch.float32, torch.bfloat16, torch.float16) and _jit() is not None


def _array(tensor: Tensor, rows: int, columns: int) -> Any:
    """The memory of a tensor as the kernels take it."""
    flat = tensor.detach().view(rows, columns)
    if flat.dtype == torch.bfloat16:
        return flat.view(torch.int16).numpy()
    if flat.dtype == torch.float16:
        return flat.view(torch.int16).numpy().view(np.uint16)
    return flat.numpy()


def _halves(*keys: int) -> Any:
    return np.array([[key & 0xFFFFFFFF, key >> 32] for key in keys], np.uint32).reshape(-1, 2)


@cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers, thread_name_prefix="optaware-noise")


def _spread(rows: int, columns: int, run: Callable[[int, int], None]) -> None:
    """Run over all rows, on as many threads as torch uses where there is enough to do. Rows are independent."""
    workers = min(torch.get_num_threads(), max(1, rows * columns // _LEAST), max(1, rows))
    if workers == 1:
        run(0, rows)
        return
    edges = [rows * index // workers for index in range(workers + 1)]
    for done in [_pool(workers).submit(run, *edge) for edge in pairwise(edges)]:
        done.result()


def fill(
    key: int,
    shape: torch.Size | tuple[int, ...],
    distribution: Distribution,
    *,
    rows: Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """As `reference_noise`, to the bit, but fast where it can be."""
    where = rows.device if rows is not None else torch.device(device)
    if where.type == "cuda" and (kernels := _triton()) is not None:
        height, columns = table(shape)
        numbered = height if rows is None else rows.to(torch.int64).contiguous()
        drawn: Tensor = kernels.fill(key, numbered, columns, signs=distribution == "rademacher", device=where)
        return drawn.view(tuple(shape)) if rows is None else drawn
    jit = _jit() if where.type == "cpu" else None
    if jit is None:
        return reference_noise(key, shape, distribution, rows=rows, device=where)
    height, columns = table(shape)
    numbers = np.arange(height) if rows is None else rows.to(torch.int64).numpy()
    out = torch.empty(len(numbers), columns)
    array, halves, signs = out.numpy(), _halves(key)[0], distribution == "rademacher"
    _spread(len(numbers), columns, lambda a, b: jit.fill(array[a:b], numbers[a:b], halves, signs))
    return out.view(tuple(shape)) if rows is None else out


def _kept(mask: Mask, stored: Tensor, rows: Tensor, columns: int) -> Tensor | None:
    if mask.kind == 1:
        return stored.abs() <= mask.limit
    if mask.kind == 2:
        return reference.mask_shares(mask.key, rows, columns) < int(mask.limit)
    return None


def masked(z: Tensor, weight: Tensor, mask: Mask, rows: Tensor | None = None) -> Tensor:
    """z with the entries set to 0 that the mask takes out; `weight` holds the stored values at the same places."""
    if mask.kind == 0:
        return z
    height, columns = table(z.shape)
    numbers = torch.arange(height, device=z.device) if rows is None else rows
    stored = weight.reshape(height, columns).to(torch.float32)
    kept = _kept(mask, stored, numbers, columns)
    assert kept is not None
    return torch.where(kept.view(z.shape), z, 0.0)


def show(
    weight: Tensor,
    out: Tensor,
    probes: Sequence[tuple[int, float]],
    distribution: Distribution,
    mask: Mask = NO_MASK,
    noise: Callable[[int], Tensor] | None = None,
    first_row: int = 0,
) -> None:
    """`out[p] ← weight + scale_p·z(key_p)`, the sum in fp32, rounded to the dtype of the weight; one draw per key.

    Args:
        weight: The stored weight; it is only read.
        out: (probes, *shape of the weight), contiguous.
        probes: Key and scale each; probes of one key next to each other share the draw.
        distribution: Of z.
        mask: What is left in of z.
        noise: z (masked already) by key, where it is kept in memory.
        first_row: Number of the first row of `weight` in its parameter, when it is only a part of one.
    """
    rows, columns = table(weight.shape)
    if noise is None and compiled(weight):
        keys = list(dict.fromkeys(key for key, _ in probes))
        which = np.array([keys.index(key) for key, _ in probes])
        scales = np.array([scale for _, scale in probes], np.float32)
        array, target = _array(weight, rows, columns), _array(out, len(probes) * rows, columns)
        target = target.reshape(len(probes), rows, columns)
        rest = _halves(*keys), which, scales, distribution == "rademacher", mask.kind, _halves(mask.key)[0]
        jit, limit = _jit(), np.float32(mask.limit)
        _spread(rows, columns, lambda a, b: jit.show(array, target, a, b, *rest, limit, first_row))
        return
    exact = torch.promote_types(weight.dtype, torch.float32)
    drawn: tuple[int, Tensor] | None = None
    for each, (key, scale) in zip(out, probes, strict=True):
        if drawn is None or drawn[0] != key:
            drawn = key, _z(key, weight, distribution, mask, noise, first_row)
        # Not add(alpha=…), which may fuse the product and the sum.
        each.copy_(weight.to(exact) + drawn[1].to(exact) * _single(scale, exact))


def _single(value: float, exact: torch.dtype) -> float:
    """As the compiled form has it: in fp32, unless the weights are wider."""
    return float(np.float32(value)) if exact == torch.float32 else value


def _z(
    key: int,
    weight: Tensor,
    distribution: Distribution,
    mask: Mask,
    noise: Callable[[int], Tensor] | None,
    first_row: int = 0,
) -> Tensor:
    if noise is not None:
        rows, _ = table(weight.shape)
        whole = noise(key)
        return whole if whole.shape == weight.shape else whole[first_row : first_row + rows]
    rows, _ = table(weight.shape)
    numbers = torch.arange(first_row, first_row + rows, device=weight.device)
    z = fill(key, weight.shape, distribution, rows=numbers).view(weight.shape)
    return masked(z, weight, mask, numbers)


def move(
    weight: Tensor,
    beside: Tensor | None,
    moves: Sequence[tuple[int, float]],
    factor: float,
    distribution: Distribution,
    mask: Mask = NO_MASK,
    remedy: Remedy = "none",
    rounding_key: int = 0,
    noise: Callable[[int], Tensor] | None = None,
) -> None:
    """`θ ← factor·θ + Σ amount_k·z(key_k)`, where θ is the weight and what the remedy keeps beside it.

    Args:
        weight: Written in place.
        beside: The residual (dtype of the weight) or the master copy (fp32); else None.
        moves: Key and amount each.
        factor: 1 without weight decay.
        distribution: Of z.
        mask: What is left in of z; magnitudes are those of `weight` before the move.
        remedy: How the sum is rounded.
        rounding_key: Of stochastic rounding.
        noise: z (masked already) by key, where it is kept in memory.
    """
    rows, columns = table(weight.shape)
    if noise is None and compiled(weight):
        array = _array(weight, rows, columns)
        second = array[:0] if beside is None else _array(beside, rows, columns)
        keys, amounts = _halves(*[key for key, _ in moves]), np.array([amount for _, amount in moves], np.float32)
        rest = keys, amounts, np.float32(factor), distribution == "rademacher", mask.kind, _halves(mask.key)[0]
        last = np.float32(mask.limit), _REMEDIES[remedy], _halves(rounding_key)[0]
        jit = _jit()
        _spread(rows, columns, lambda a, b: jit.move(array, second, a, b, *rest, *last))
        return
    exact = torch.promote_types(weight.dtype, torch.float32)
    change = torch.zeros(weight.shape, dtype=exact, device=weight.device)
    for key, amount in moves:
        change = change + _z(key, weight, distribution, mask, noise).to(exact) * _single(amount, exact)
    add(weight, beside, change, factor, remedy, rounding_key)


def add(
    weight: Tensor,
    beside: Tensor | None,
    change: Tensor,
    factor: float = 1.0,
    remedy: Remedy = "none",
    rounding_key: int = 0,
) -> None:
    """`θ ← factor·θ + change` with a change that is written out (fp32 or wider); otherwise as `move`."""
    exact = change.dtype
    total = weight.to(exact)
    if remedy == "residual" and beside is not None:
        total = total + beside.to(exact) * (1.0 / RESIDUAL_SCALE)
    elif remedy == "master" and beside is not None:
        total = beside
    total = total * _single(factor, exact) + change
    if remedy == "stochastic" and weight.dtype.itemsize < 4:
        _round_randomly(weight, total, rounding_key)
    else:
        weight.copy_(total)
    if beside is not None:
        beside.copy_((total - weight.to(exact)) * RESIDUAL_SCALE if remedy == "residual" else total)


def _round_randomly(weight: Tensor, total: Tensor, key: int) -> None:
    rows, columns = table(weight.shape)
    for start in range(0, rows, max(1, _BLOCK // max(1, columns))):
        part = slice(start, min(rows, start + max(1, _BLOCK // max(1, columns))))
        numbers = torch.arange(part.start, part.stop, device=weight.device)
        counters = torch.arange(columns, dtype=torch.int32, device=weight.device)
        word = reference.words(counters, *reference.row_keys(key, numbers))
        value = total.reshape(rows, columns)[part].contiguous()
        bits = value.view(torch.int32)
        if weight.dtype == torch.bfloat16:
            made = ((bits + ((word >> 16) & 0xFFFF)) & -65536).view(torch.float32)
        else:
            chance = (word >> 19) & 0x1FFF
            normal = ((bits + chance) & -8192).view(torch.float32)
            size = torch.floor(value.abs() * 2.0**24 + chance.to(torch.float32) * 2.0**-13)
            small = torch.copysign(size * 2.0**-24, value)
            made = torch.where(value.abs() < 2.0**-14, small, normal)
        weight.view(rows, columns)[part].copy_(made)
