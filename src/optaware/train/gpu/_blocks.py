"""Triton kernels for what lies between the matrix products of a Llama-like block, with rows of both signs in one batch."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,untyped-decorator"
from __future__ import annotations

import triton
import triton.language as tl

__all__ = ["add_norm", "attend", "gate"]


@triton.jit
def add_norm(
    hidden, change, scale, out, rows, other_sign, epsilon,
    WIDTH: tl.constexpr, ADD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """`hidden += change` (if ADD), `out = hidden / rms(hidden) · scale`, one row a program.

    The first `rows` rows use the norm scale at `scale`, the others the one `other_sign` numbers further on. All in fp32,
    rounded when stored; the norm sees what is stored in `hidden`.
    """
    row = tl.program_id(0)
    at = tl.arange(0, BLOCK)
    mask = at < WIDTH
    place = row.to(tl.int64) * WIDTH + at
    value = tl.load(hidden + place, mask=mask, other=0.0)
    if ADD:
        total = value.to(tl.float32) + tl.load(change + place, mask=mask, other=0.0).to(tl.float32)
        value = total.to(hidden.dtype.element_ty)
        tl.store(hidden + place, value, mask=mask)
    wide = value.to(tl.float32)
    inverse = tl.rsqrt(tl.sum(wide * wide, 0) / WIDTH + epsilon)
    weight = tl.load(scale + (row // rows) * other_sign + at, mask=mask, other=0.0)
    tl.store(out + place, (wide * inverse * weight).to(out.dtype.element_ty), mask=mask)


@triton.jit
def gate(
    gates, ups, inner, left, rows, width, gate_stride, up_stride,
    inner_stride, left_stride, left_sign, gate_left, up_left,
    RANK: tl.constexpr, RANK_BLOCK: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """`gates ← silu(gates) · ups`, in place, after adding to both their side products if RANK > 0.

    `inner` holds the inner products of a row, RANK for the gate and then RANK for the up projection; `left` the left
    factors (RANK, …), the gate's from column `gate_left`, the up projection's from `up_left`, the second sign's
    `left_sign` numbers further on. `rows` is the number of rows of one sign, a multiple of BLOCK_M or covered by a mask
    per sign (grid axis 2).
    """
    sign = tl.program_id(2)
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = sign.to(tl.int64) * rows + m
    mask = (m < rows)[:, None] & (n < width)[None, :]
    gate_place = gates + row[:, None] * gate_stride + n[None, :]
    g = tl.load(gate_place, mask=mask, other=0.0).to(tl.float32)
    u = tl.load(ups + row[:, None] * up_stride + n[None, :], mask=mask, other=0.0).to(tl.float32)
    if RANK > 0:
        r = tl.arange(0, RANK_BLOCK)
        some = (m < rows)[:, None] & (r < RANK)[None, :]
        those = (r < RANK)[:, None] & (n < width)[None, :]
        products = inner + row[:, None] * inner_stride + r[None, :]
        factors = left + sign * left_sign + r[:, None] * left_stride + n[None, :]
        gate_inner = tl.load(products, mask=some, other=0.0)
        up_inner = tl.load(products + RANK, mask=some, other=0.0)
        gate_factor = tl.load(factors + gate_left, mask=those, other=0.0)
        up_factor = tl.load(factors + up_left, mask=those, other=0.0)
        g = tl.dot(gate_inner, gate_factor, g, input_precision=PRECISION)
        u = tl.dot(up_inner, up_factor, u, input_precision=PRECISION)
    tl.store(gate_place, (g * tl.sigmoid(g) * u).to(gates.dtype.element_ty), mask=mask)


@triton.jit
def attend(
    qkv, cosine, sine, segments, out, length, examples, kept, scaling,
    HEADS: tl.constexpr, KV_HEADS: tl.constexpr, SIZE: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    """Causal attention with rotary positions, grouped heads, left padding and option branches, for the last `kept` queries.

    `qkv` is (2·examples·length, (HEADS + 2·KV_HEADS)·SIZE); `cosine` and `sine` (examples, length, SIZE/2), fp32;
    `segments` (examples, length): −1 for padding, 0 for the prompt, k for option k. A query sees itself and what lies
    before it in the prompt or in its own segment. `out` is (2·examples·kept, HEADS·SIZE). Softmax is taken online in fp32
    (Dao et al., FlashAttention, 2022).
    """
    HALF: tl.constexpr = SIZE // 2
    WIDTH: tl.constexpr = (HEADS + 2 * KV_HEADS) * SIZE
    row = tl.program_id(1) // HEADS
    head = tl.program_id(1) % HEADS
    example = row % examples
    kv_head = head // (HEADS // KV_HEADS)
    m = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    query = m + length - kept
    exists = m < kept
    half = tl.arange(0, HALF)
    whole = tl.arange(0, SIZE)
    base = qkv + row.to(tl.int64) * length * WIDTH
    turn = example * length
    table = (turn + query)[:, None] * HALF + half[None, :]
    c = tl.load(cosine + table, mask=exists[:, None], other=0.0)
    s = tl.load(sine + table, mask=exists[:, None], other=0.0)
    place = base + query[:, None] * WIDTH + head * SIZE + half[None, :]
    a = tl.load(place, mask=exists[:, None], other=0.0).to(tl.float32)
    b = tl.load(place + HALF, mask=exists[:, None], other=0.0).to(tl.float32)
    q_low = ((a * c - b * s) * scaling).to(qkv.dtype.element_ty)
    q_high = ((b * c + a * s) * scaling).to(qkv.dtype.element_ty)
    own = tl.load(segments + turn + query, mask=exists, other=-1)
    highest = tl.full((BLOCK_M,), -1e30, tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    result = tl.zeros((BLOCK_M, SIZE), tl.float32)
    last = tl.minimum(length, (tl.program_id(0) + 1) * BLOCK_M + length - kept)
    for start in range(0, last, BLOCK_N):
        n = start + tl.arange(0, BLOCK_N)
        inside = n < length
        key_table = (turn + n)[:, None] * HALF + half[None, :]
        key_c = tl.load(cosine + key_table, mask=inside[:, None], other=0.0)
        key_s = tl.load(sine + key_table, mask=inside[:, None], other=0.0)
        key_place = base + n[:, None] * WIDTH + (HEADS + kv_head) * SIZE + half[None, :]
        key_a = tl.load(key_place, mask=inside[:, None], other=0.0).to(tl.float32)
        key_b = tl.load(key_place + HALF, mask=inside[:, None], other=0.0).to(tl.float32)
        k_low = (key_a * key_c - key_b * key_s).to(qkv.dtype.element_ty)
        k_high = (key_b * key_c + key_a * key_s).to(qkv.dtype.element_ty)
        scores = tl.dot(q_low, tl.trans(k_low), input_precision=PRECISION)
        scores = tl.dot(q_high, tl.trans(k_high), scores, input_precision=PRECISION)
        theirs = tl.load(segments + turn + n, mask=inside, other=-2)
        related = (theirs[None, :] == 0) | (theirs[None, :] == own[:, None])
        seen = (n[None, :] <= query[:, None]) & related & (theirs[None, :] >= 0)
        seen = seen | (n[None, :] == query[:, None])
        scores = tl.where(seen, scores * 1.4426950408889634, -1e30)
        top = tl.maximum(highest, tl.max(scores, 1))
        weights = tl.where(seen, tl.exp2(scores - top[:, None]), 0.0)
        shrink = tl.exp2(highest - top)
        total = total * shrink + tl.sum(weights, 1)
        value_place = base + n[:, None] * WIDTH + (HEADS + KV_HEADS + kv_head) * SIZE + whole[None, :]
        values = tl.load(value_place, mask=inside[:, None], other=0.0)
        result = result * shrink[:, None]
        result = tl.dot(weights.to(qkv.dtype.element_ty), values, result, input_precision=PRECISION)
        highest = top
    result = result / tl.where(total > 0, total, 1.0)[:, None]
    target = out + (row.to(tl.int64) * kept + m)[:, None] * (HEADS * SIZE) + head * SIZE + whole[None, :]
    tl.store(target, result.to(out.dtype.element_ty), mask=exists[:, None])
