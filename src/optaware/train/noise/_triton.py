"""The noise in Triton: parts for the fused kernels, equal to the definition to rounding, and a fill that has its bits."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

__all__ = ["draw_pair", "fill", "gaussian_pair", "row_key", "site_key", "words"]

# The constants of `_reference.py` (a test compares the numbers that come out). A kernel that is launched as it comes may
# fuse products and sums and take an approximate square root, which changes a number by a few units in its last place.
# EXACT, and a launch with `enable_fp_fusion=False`, gives the definition's bits.


@triton.jit
def words(counters, first, second):
    """One 32-bit word per counter, a function of a 64-bit key in two halves."""
    x = counters.to(tl.uint32) + first
    x = (x ^ (x >> 16)) * 0x7FEB352D
    x = (x ^ (x >> 15) ^ second) * 0x846CA68B
    return x ^ (x >> 16)


@triton.jit
def site_key(keys, site):
    """The two halves of a parameter's key; `keys` is a table of 32-bit halves on the device, two per parameter."""
    at = keys + site * 2
    return tl.load(at).to(tl.uint32, bitcast=True), tl.load(at + 1).to(tl.uint32, bitcast=True)


@triton.jit
def row_key(row, first, second):
    """The two halves of the key of one row of a parameter."""
    counter = row.to(tl.uint32) * 2
    return words(counter, first, second), words(counter + 1, first, second)


@triton.jit
def gaussian_pair(word, EXACT: tl.constexpr = False):
    """Two standard normal numbers from each word; see `_reference.py: pairs`."""
    odd = ((word & 0xFFFF) << 1) | 1
    bits = odd.to(tl.float32).to(tl.int32, bitcast=True)
    exponent = (144 - (bits >> 23)).to(tl.float32)
    x = ((bits & 0x7FFFFF) | 0x3F800000).to(tl.float32, bitcast=True) - 1.5
    log = x * -0.035614974796772 + 0.06089850142598152
    log = log * x - 0.09756302833557129
    log = log * x + 0.19646292924880981
    log = log * x - 0.44451844692230225
    log = log * x + 1.3333673477172852
    log = log * x + 0.8109309673309326
    squared = exponent * 1.3862943649291992 - log
    if EXACT:
        radius = tl.sqrt_rn(squared)
    else:
        radius = tl.sqrt(squared)
    y = (((word >> 15) & 0x7FFE).to(tl.int32) - 16383).to(tl.float32) * 4.793690095539205e-05
    square = y * y
    sine = ((square * 0.00576409325003624 - 0.11782186478376389) * square + 0.7071077823638916) * y
    cosine = (square * 0.028566161170601845 - 0.353348046541214) * square + 0.7071017622947693
    sign = word & 0x80000000
    other = (word << 1) & 0x80000000
    one = (radius * (cosine - sine)).to(tl.uint32, bitcast=True) ^ sign
    two = (radius * (cosine + sine)).to(tl.uint32, bitcast=True) ^ other
    return one.to(tl.float32, bitcast=True), two.to(tl.float32, bitcast=True)


@triton.jit
def _sign(column, group, low, high):
    """±1.0 of one column; see `_reference.py: rademacher`."""
    word = words(column % group, low, high)
    bit = (word >> (column // group).to(tl.uint32)) & 1
    return 1.0 - 2.0 * bit.to(tl.float32)


@triton.jit
def draw_pair(counter, half, width, low, high, SIGNS: tl.constexpr, EXACT: tl.constexpr = False):
    """z of columns `counter` and `counter + half` of a row: Gaussian, or ±1 if SIGNS."""
    if SIGNS:
        group = (width + 31) // 32
        one = _sign(counter, group, low, high)
        two = _sign(counter + half, group, low, high)
    else:
        one, two = gaussian_pair(words(counter, low, high), EXACT)
    return one, two


@triton.jit(do_not_specialize=["low", "high"])
def _fill(out, rows, low, high, width, NUMBERED: tl.constexpr, SIGNS: tl.constexpr, BLOCK: tl.constexpr):
    """One row of a table, or a part of one: the row of that number if NUMBERED, else of the program's."""
    place = tl.program_id(0).to(tl.int64)
    if NUMBERED:
        row = tl.load(rows + place)
    else:
        row = place
    first, second = row_key(row, low.to(tl.uint32, bitcast=True), high.to(tl.uint32, bitcast=True))
    half = (width + 1) // 2
    counter = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    one, two = draw_pair(counter, half, width, first, second, SIGNS, True)
    tl.store(out + place * width + counter, one, mask=counter < half)
    tl.store(out + place * width + half + counter, two, mask=counter + half < width)


def fill(key: int, rows: Tensor | int, columns: int, *, signs: bool, device: torch.device) -> Tensor:
    """The rows of a parameter's noise, fp32, to the bit as `reference_noise` has them.

    Args:
        key: 64 bits.
        rows: Row numbers (int64, on `device`), or how many rows from the first on.
        columns: Of the parameter's table.
        signs: ±1 instead of Gaussian numbers.
        device: Where.
    """
    count = rows if isinstance(rows, int) else len(rows)
    out = torch.empty(count, columns, device=device)
    if not out.numel():
        return out
    half = (columns + 1) // 2
    block = min(1024, triton.next_power_of_2(half))
    low, high = (part - (1 << 32) if part >> 31 else part for part in (key & 0xFFFFFFFF, key >> 32))
    _fill[(count, triton.cdiv(half, block))](
        out, out if isinstance(rows, int) else rows, low, high, columns, NUMBERED=not isinstance(rows, int),
        SIGNS=signs, BLOCK=block, enable_fp_fusion=False,
    )  # fmt: skip
    return out
