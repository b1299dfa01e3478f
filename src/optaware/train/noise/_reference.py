"""The noise by definition: integer hashes of counters and a Box–Muller transform in plain fp32, written in torch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "ANGLE",
    "COSINE",
    "LOG",
    "LOG_SCALE",
    "MULTIPLIERS",
    "SINE",
    "TAIL",
    "gaussian",
    "mask_shares",
    "pairs",
    "rademacher",
    "row_keys",
    "words",
]

# Every constant below is an exact float32. Polynomials are evaluated by Horner's rule, each product and each sum
# rounded to fp32 (no fused multiply-add), so that whatever follows IEEE 754 gives the same bits.

MULTIPLIERS = (0x7FEB352D, 0x846CA68B)
"""Those of the 32-bit mixer found by Wellons's search (Hash Prospector, 2018)."""

LOG = (
    0.8109309673309326,
    1.3333673477172852,
    -0.44451844692230225,
    0.19646292924880981,
    -0.09756302833557129,
    0.06089850142598152,
    -0.035614974796772,
)
"""2·ln(x + 1.5) for x in [−0.5, 0.5), lowest power first; error below 2.6e-6."""

LOG_SCALE = 1.3862943649291992
"""2·ln 2."""

SINE = (0.7071077823638916, -0.11782186478376389, 0.00576409325003624)
"""sin(y)/(y·√2) in powers of y²; error below 2e-6 for y in [−π/4, π/4]."""

COSINE = (0.7071017622947693, -0.353348046541214, 0.028566161170601845)
"""cos(y)/√2 in powers of y²; error below 8e-6."""

ANGLE = 4.793690095539205e-05
"""π/65536."""

TAIL = 4.854638
"""The largest magnitude that a Gaussian number can have: √(2·ln 131072)."""

_MANTISSA, _ONE, _SIGN = 0x7FFFFF, 0x3F800000, -0x80000000


def _signed(value: int) -> int:
    """A 32-bit pattern as torch's int32 has it."""
    return value - (1 << 32) if value >= 1 << 31 else value


def _right(value: Tensor, bits: int) -> Tensor:
    """Shift right, filling with zeros."""
    return (value >> bits) & ((1 << (32 - bits)) - 1)


def words(counters: Tensor, first: Tensor | int, second: Tensor | int) -> Tensor:
    """Random 32-bit words, one per counter, under a 64-bit key given in two halves.

    `x = counter + first; x ^= x >> 16; x *= 0x7FEB352D; x ^= x >> 15; x ^= second; x *= 0x846CA68B; x ^= x >> 16`, all
    modulo 2³². For one key this is a permutation of the counters.

    Args:
        counters: int32.
        first: Lower half of the key, int32 (tensors broadcast).
        second: Upper half of the key, int32.
    """
    x = counters + first
    x = (x ^ _right(x, 16)) * MULTIPLIERS[0]
    x = (x ^ _right(x, 15) ^ second) * _signed(MULTIPLIERS[1])
    return x ^ _right(x, 16)


def row_keys(key: int, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Keys of single rows: `words` of the counters 2·row and 2·row + 1 under the key of the parameter.

    Args:
        key: 64 bits.
        rows: Row numbers, integer, below 2³¹.

    Returns:
        Lower and upper halves, int32, (rows, 1).
    """
    low, high = _signed(key & 0xFFFFFFFF), _signed(key >> 32)
    counters = (2 * rows.to(torch.int64)).to(torch.int32)[:, None]
    return words(counters, low, high), words(counters + 1, low, high)


def pairs(word: Tensor) -> tuple[Tensor, Tensor]:
    """Two independent Gaussian numbers from each word (Box–Muller).

    The lower 16 bits k give the radius `r = √(−2·ln((k + ½)/65536))`; bits 16–29, j, give the angle
    `(j + ½)/16384 · π/2`, of which the sine and the cosine are made from y = angle − π/4; bit 31 is the sign of the
    first number (r·cos), bit 30 that of the second (r·sin). √½ and the factor that makes the variance 1 under these
    discrete radii and angles are part of the polynomials: over all 2³² words the mean is 0 by symmetry, the variance 1
    within 2e-7, the fourth moment 2.9998, and no number exceeds 4.8547 (a true Gaussian does so once in 800,000).
    """
    odd = ((word & 0xFFFF) << 1) | 1  # 2k + 1: −2·ln u = 2·ln 2·17 − 2·ln(2k + 1)
    bits = odd.to(torch.float32).view(torch.int32)
    exponent = (144 - (bits >> 23)).to(torch.float32)
    x = ((bits & _MANTISSA) | _ONE).view(torch.float32) - 1.5
    log = torch.full_like(x, LOG[-1])
    for coefficient in reversed(LOG[:-1]):
        log = log * x + coefficient
    # torch's own fp32 square root is an ulp off here and there; rounded from fp64 it is the IEEE one.
    radius = torch.sqrt((exponent * LOG_SCALE - log).to(torch.float64)).to(torch.float32)
    y = ((_right(word, 15) & 0x7FFE) - 16383).to(torch.float32) * ANGLE
    square = y * y
    sine = ((square * SINE[2] + SINE[1]) * square + SINE[0]) * y
    cosine = (square * COSINE[2] + COSINE[1]) * square + COSINE[0]
    first = (radius * (cosine - sine)).view(torch.int32) ^ (word & _SIGN)
    second = (radius * (cosine + sine)).view(torch.int32) ^ ((word << 1) & _SIGN)
    return first.view(torch.float32), second.view(torch.float32)


def gaussian(key: int, rows: Tensor, columns: int) -> Tensor:
    """z ~ N(0, 1) for some rows of a matrix with `columns` columns, fp32.

    With h = ⌈columns/2⌉, the word of counter c < h of a row gives columns c and c + h (if there is one).
    """
    half = (columns + 1) // 2
    counters = torch.arange(half, dtype=torch.int32, device=rows.device)
    first, second = pairs(words(counters, *row_keys(key, rows)))
    return torch.cat((first, second[:, : columns - half]), dim=1)


def rademacher(key: int, rows: Tensor, columns: int) -> Tensor:
    """z = ±1 with equal chances, fp32.

    With g = ⌈columns/32⌉, bit b of the word of counter c < g of a row is column c + b·g: 1 means −1.
    """
    group = (columns + 31) // 32
    counters = torch.arange(group, dtype=torch.int32, device=rows.device)
    word = words(counters, *row_keys(key, rows))
    bits = torch.stack([_right(word, bit) & 1 for bit in range(32)], dim=1) if group else word[:, None]
    return (1 - 2 * bits).reshape(len(rows), -1)[:, :columns].to(torch.float32)


def mask_shares(key: int, rows: Tensor, columns: int) -> Tensor:
    """Uniform integers 0 … 65535, int32: a random mask of density d keeps the entries below `round(65536·d)`.

    With h = ⌈columns/2⌉, the word of counter c < h gives column c its lower and column c + h its upper 16 bits.
    """
    half = (columns + 1) // 2
    counters = torch.arange(half, dtype=torch.int32, device=rows.device)
    word = words(counters, *row_keys(key, rows))
    return torch.cat((word & 0xFFFF, _right(word, 16)[:, : columns - half]), dim=1)
