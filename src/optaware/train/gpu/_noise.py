"""The Triton twin of `optaware.train.noise`: the same integer words, and Gaussian pairs equal to the definition's to rounding."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["draw_pair", "gaussian_pair", "row_key", "site_key", "words"]

# The constants of `noise/_reference.py` (a test compares the numbers that come out). Products and sums may be fused
# here, which changes a number by at most a few units in its last place.


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
def gaussian_pair(word):
    """Two standard normal numbers from each word; see `noise/_reference.py: pairs`."""
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
    radius = tl.sqrt(exponent * 1.3862943649291992 - log)
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
    """±1.0 of one column; see `noise/_reference.py: rademacher`."""
    word = words(column % group, low, high)
    bit = (word >> (column // group).to(tl.uint32)) & 1
    return 1.0 - 2.0 * bit.to(tl.float32)


@triton.jit
def draw_pair(counter, half, width, low, high, SIGNS: tl.constexpr):
    """z of columns `counter` and `counter + half` of a row: Gaussian, or ±1 if SIGNS."""
    if SIGNS:
        group = (width + 31) // 32
        one = _sign(counter, group, low, high)
        two = _sign(counter + half, group, low, high)
    else:
        one, two = gaussian_pair(words(counter, low, high))
    return one, two
