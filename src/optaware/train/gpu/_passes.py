"""Triton kernels that pass over stored numbers: show both signs of a perturbation, move along it.

They work on tables of tiles (`_tables.py`), so that one launch serves any number of parameters, and they read their keys
and scales from the device, so that a captured graph can be replayed with other seeds. Row r of a parameter with n columns
is drawn in pairs: counter c gives columns c and c + ⌈n/2⌉.
"""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

from optaware.train.noise._triton import draw_pair, gaussian_pair, row_key, site_key, words

__all__ = ["coefficients", "gather_left", "gather_rows", "move", "show"]


@triton.jit
def show(
    tiles, sites, keys, query, scale, out, other_sign, out_stride,
    SITES: tl.constexpr, SOURCE: tl.constexpr, ALIGN: tl.constexpr, BLOCK: tl.constexpr, TURNS: tl.constexpr,
    SIGNS: tl.constexpr,
):  # fmt: skip
    """`out = w + scale·z` and, `other_sign` numbers further on, `w − scale·z`, with one draw of z for both.

    A tile names a parameter, its first row, its first counter, and where its first row is written; rows are written
    `out_stride` numbers apart.
    """
    tile = tiles + tl.program_id(0).to(tl.int64) * 4
    site = tl.load(tile)
    first_row = tl.load(tile + 1)
    start = tl.multiple_of(tl.load(tile + 2), ALIGN)
    target = tl.multiple_of(tl.load(tile + 3).to(tl.int64), ALIGN)
    base = tl.multiple_of(tl.load(sites + site * 4).to(tl.pointer_type(SOURCE)), 16)
    height = tl.load(sites + site * 4 + 1).to(tl.int32)
    width = tl.load(sites + site * 4 + 2).to(tl.int32)
    stride = tl.multiple_of(tl.load(sites + site * 4 + 3), ALIGN)
    if ALIGN == 16:
        width = width // 32 * 32
    half = (width + 1) // (2 * ALIGN) * ALIGN
    first, second = site_key(keys, tl.load(query) * SITES + site)
    amount = tl.load(scale).to(tl.float32)
    counter = start + tl.arange(0, BLOCK)
    for turn in tl.static_range(TURNS):
        row = first_row + turn
        here = (counter < half) & (row < height)
        there = here & (counter + half < width)
        source = base + row * stride + counter
        place = out + target + turn * out_stride + counter
        one = tl.load(source, mask=here, other=0.0).to(tl.float32)
        two = tl.load(source + half, mask=there, other=0.0).to(tl.float32)
        low, high = row_key(row, first, second)
        z_one, z_two = draw_pair(counter, half, width, low, high, SIGNS)
        z_one = z_one * amount
        z_two = z_two * amount
        tl.store(place, (one + z_one).to(out.dtype.element_ty), mask=here)
        tl.store(place + half, (two + z_two).to(out.dtype.element_ty), mask=there)
        tl.store(place + other_sign, (one - z_one).to(out.dtype.element_ty), mask=here)
        tl.store(place + other_sign + half, (two - z_two).to(out.dtype.element_ty), mask=there)


@triton.jit
def _cut(value, noise):
    """bf16 from fp32 by adding 16 random bits below those that are kept and cutting: exact on average."""
    bits = value.to(tl.int32, bitcast=True) + noise.to(tl.int32)
    return (bits & -65536).to(tl.float32, bitcast=True)


@triton.jit
def move(
    tiles, sites, keys, amounts, decay, residuals, queries,
    SITES: tl.constexpr, SOURCE: tl.constexpr, ROUNDING: tl.constexpr, ALIGN: tl.constexpr,
    BLOCK: tl.constexpr, TURNS: tl.constexpr, SIGNS: tl.constexpr,
):  # fmt: skip
    """`w ← decay·w + Σ_q amounts[q]·z_q` in fp32, with one rounding at the end.

    ROUNDING: 0 to nearest. 1 stochastic (bf16 only): up with the probability that makes it exact on average. 2 to nearest,
    and what that took off is kept, times 1024, in a second number of the same dtype, whose addresses `residuals` holds.
    """
    tile = tiles + tl.program_id(0).to(tl.int64) * 4
    site = tl.load(tile)
    first_row = tl.load(tile + 1)
    start = tl.multiple_of(tl.load(tile + 2), ALIGN)
    base = tl.multiple_of(tl.load(sites + site * 4).to(tl.pointer_type(SOURCE)), 16)
    rest = base
    if ROUNDING == 2:
        rest = tl.multiple_of(tl.load(residuals + site).to(tl.pointer_type(SOURCE)), 16)
    height = tl.load(sites + site * 4 + 1).to(tl.int32)
    width = tl.load(sites + site * 4 + 2).to(tl.int32)
    stride = tl.multiple_of(tl.load(sites + site * 4 + 3), ALIGN)
    if ALIGN == 16:
        width = width // 32 * 32
    half = (width + 1) // (2 * ALIGN) * ALIGN
    factor = tl.load(decay).to(tl.float32)
    counter = start + tl.arange(0, BLOCK)
    for turn in tl.static_range(TURNS):
        row = first_row + turn
        here = (counter < half) & (row < height)
        there = here & (counter + half < width)
        offset = row * stride + counter
        place = base + offset
        one = tl.load(place, mask=here, other=0.0).to(tl.float32)
        two = tl.load(place + half, mask=there, other=0.0).to(tl.float32)
        if ROUNDING == 2:
            one += tl.load(rest + offset, mask=here, other=0.0).to(tl.float32) * (1.0 / 1024.0)
            two += tl.load(rest + offset + half, mask=there, other=0.0).to(tl.float32) * (1.0 / 1024.0)
        one *= factor
        two *= factor
        for query in range(queries):
            first, second = site_key(keys, query * SITES + site)
            low, high = row_key(row, first, second)
            amount = tl.load(amounts + query)
            z_one, z_two = draw_pair(counter, half, width, low, high, SIGNS)
            one += amount * z_one
            two += amount * z_two
        if ROUNDING == 1:
            # The mixer is a permutation of counters for each key; the swapped key makes another one.
            first, second = site_key(keys, site)
            low, high = row_key(row, second, first)
            word = words(counter, low, high)
            tl.store(place, _cut(one, word & 0xFFFF).to(SOURCE), mask=here)
            tl.store(place + half, _cut(two, word >> 16).to(SOURCE), mask=there)
        else:
            stored_one = one.to(SOURCE)
            stored_two = two.to(SOURCE)
            tl.store(place, stored_one, mask=here)
            tl.store(place + half, stored_two, mask=there)
            if ROUNDING == 2:
                one = (one - stored_one.to(tl.float32)) * 1024.0
                two = (two - stored_two.to(tl.float32)) * 1024.0
                tl.store(rest + offset, one.to(SOURCE), mask=here)
                tl.store(rest + offset + half, two.to(SOURCE), mask=there)


@triton.jit
def gather_rows(
    source, ids, keys, query, scale, out, count,
    SITE: tl.constexpr, SITES: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr, SIGNS: tl.constexpr,
):  # fmt: skip
    """Rows `ids` of a matrix, both signs: `out[0, i] = w[ids[i]] + scale·z[ids[i]]`, `out[1, i]` with minus."""
    program = tl.program_id(0).to(tl.int64)
    half: tl.constexpr = (WIDTH + 1) // 2
    row = tl.load(ids + program)
    first, second = site_key(keys, tl.load(query) * SITES + SITE)
    low, high = row_key(row, first, second)
    amount = tl.load(scale).to(tl.float32)
    for start in tl.static_range(0, half, BLOCK):
        counter = start + tl.arange(0, BLOCK)
        here = counter < half
        there = here & (counter + half < WIDTH)
        one = tl.load(source + row * WIDTH + counter, mask=here, other=0.0).to(tl.float32)
        two = tl.load(source + row * WIDTH + counter + half, mask=there, other=0.0).to(tl.float32)
        z_one, z_two = draw_pair(counter, half, WIDTH, low, high, SIGNS)
        z_one = z_one * amount
        z_two = z_two * amount
        place = out + program * WIDTH + counter
        tl.store(place, (one + z_one).to(out.dtype.element_ty), mask=here)
        tl.store(place + half, (two + z_two).to(out.dtype.element_ty), mask=there)
        place += count * WIDTH
        tl.store(place, (one - z_one).to(out.dtype.element_ty), mask=here)
        tl.store(place + half, (two - z_two).to(out.dtype.element_ty), mask=there)


@triton.jit
def gather_left(
    learnt, ids, keys, query, scale, out, count, height, stride,
    SITE: tl.constexpr, SITES: tl.constexpr, RANK: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Rows `ids` of a left factor, both signs: `out[0, i, j] = A[j, ids[i]] + scale·U[j, ids[i]]`, `out[1]` with minus.

    A and U lie transposed, (RANK, height), rows of A `stride` numbers apart.
    """
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    mask = index < count
    first, second = site_key(keys, tl.load(query) * SITES + SITE)
    amount = tl.load(scale).to(tl.float32)
    half = (height + 1) // 2
    token = tl.load(ids + index, mask=mask, other=0).to(tl.int32)
    upper = token >= half
    counter = tl.where(upper, token - half, token)
    for factor in tl.static_range(RANK):
        low, high = row_key(tl.full((), factor, tl.int32), first, second)
        z_one, z_two = gaussian_pair(words(counter, low, high))
        z = tl.where(upper, z_two, z_one) * amount
        value = tl.load(learnt + factor * stride + token, mask=mask, other=0.0)
        tl.store(out + index * RANK + factor, (value + z).to(out.dtype.element_ty), mask=mask)
        tl.store(out + (count + index) * RANK + factor, (value - z).to(out.dtype.element_ty), mask=mask)


@triton.jit
def coefficients(
    losses, schedule, found, amounts, decay, queries,
    CLIP: tl.constexpr, GIVEN: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`g_q = (L_q⁺ − L_q⁻) / (2·eps)`, `amounts[q] = −lr·g_q / n`, n the queries whose losses were finite.

    `schedule` holds lr, eps, the limit of abs(g) and the decay factor in fp64. A query with a loss that is not finite gets
    the coefficient NaN and the amount 0; without a finite query `decay` becomes 1, so that nothing changes. If GIVEN, g is
    read from `found`.
    """
    at = tl.arange(0, BLOCK)
    mask = at < queries
    above = tl.load(losses + 2 * at, mask=mask, other=0.0).to(tl.float64)
    below = tl.load(losses + 2 * at + 1, mask=mask, other=0.0).to(tl.float64)
    rate = tl.load(schedule)
    eps = tl.load(schedule + 1)
    if GIVEN:
        g = tl.load(found + at, mask=mask, other=0.0)
    else:
        g = ((above - below) / (2.0 * eps)).to(tl.float32)
    if CLIP:
        limit = tl.load(schedule + 2).to(tl.float32)
        g = tl.where(g > limit, limit, tl.where(g < -limit, -limit, g))
    finite = (tl.abs(g) < float("inf")) & (tl.abs(above) < float("inf")) & (tl.abs(below) < float("inf")) & mask
    usable = tl.sum(finite.to(tl.int32), 0)
    tl.store(found + at, tl.where(finite, g, float("nan")), mask=mask)
    share = -rate * g.to(tl.float64) / tl.maximum(usable, 1).to(tl.float64)
    tl.store(decay, tl.where(usable > 0, tl.load(schedule + 3), 1.0).to(tl.float32))
    tl.store(amounts + at, tl.where(finite, share, 0.0).to(tl.float32), mask=mask)
