"""Compiled kernels for CPUs (numba): the definition in SIMD code, one row of a table at a time.

A row's noise is made in fp32 in a buffer that stays in the first-level cache, masked there, and then used, so every
combination of distribution, mask and use is made of the same few loops. bf16 weights come as int16 arrays, fp16 weights
as uint16, fp32 as they are. Sums and products are rounded one by one, as the definition asks.
"""

# numba widens mixed integer arithmetic to 64 bits, so every step is cast back to 32.
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from optaware.train.noise import _reference as definition

__all__ = ["fill", "move", "show"]

_u = np.uint32
_f = np.float32
M1, M2 = (_u(each) for each in definition.MULTIPLIERS)
L0, L1, L2, L3, L4, L5, L6 = (_f(each) for each in definition.LOG)
S0, S1, S2 = (_f(each) for each in definition.SINE)
C0, C1, C2 = (_f(each) for each in definition.COSINE)
LOG_SCALE, ANGLE = _f(definition.LOG_SCALE), _f(definition.ANGLE)
UP, DOWN = _f(1024.0), _f(1.0 / 1024.0)


def _compiled(function: Callable[..., Any]) -> Any:
    """With the machine code kept on disk where that is possible."""
    try:
        return numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError:  # no folder that can be written
        return numba.njit(nogil=True, error_model="numpy")(function)


inline: Any = numba.njit(inline="always", error_model="numpy")


@intrinsic
def _bits(_: Any, value: Any) -> Any:
    """The pattern of an fp32 number."""
    return types.uint32(types.float32), lambda context, build, signature, args: build.bitcast(args[0], ir.IntType(32))


@intrinsic
def _number(_: Any, value: Any) -> Any:
    """The fp32 number of a pattern."""
    return types.float32(types.uint32), lambda context, build, signature, args: build.bitcast(args[0], ir.FloatType())


@intrinsic
def _from_half(_: Any, value: Any) -> Any:
    def make(context: Any, build: Any, signature: Any, args: Any) -> Any:
        return build.fpext(build.bitcast(args[0], ir.HalfType()), ir.FloatType())

    return types.float32(types.uint16), make


@intrinsic
def _to_half(_: Any, value: Any) -> Any:
    def make(context: Any, build: Any, signature: Any, args: Any) -> Any:
        return build.bitcast(build.fptrunc(args[0], ir.HalfType()), ir.IntType(16))

    return types.uint16(types.float32), make


@inline
def _word(counter: Any, first: Any, second: Any) -> Any:
    x = _u(counter + first)
    x = _u(x ^ (x >> _u(16)))
    x = _u(x * M1)
    x = _u(x ^ (x >> _u(15)))
    x = _u(x ^ second)
    x = _u(x * M2)
    return _u(x ^ (x >> _u(16)))


@inline
def _gaussian(first: Any, second: Any, z: Any) -> None:
    columns = len(z)
    half = (columns + 1) // 2
    left, right = z[:half], z[half:]
    for c in range(columns - half):
        left[c], right[c] = _pair(_word(_u(c), first, second))
    if columns % 2:
        left[half - 1] = _pair(_word(_u(half - 1), first, second))[0]


@inline
def _pair(x: Any) -> Any:
    odd = _f(np.int32(_u(_u(_u(x & _u(0xFFFF)) << _u(1)) | _u(1))))
    bits = _bits(odd)
    exponent = _f(np.int32(_u(_u(144) - _u(bits >> _u(23)))))
    m = _number(_u(_u(bits & _u(0x7FFFFF)) | _u(0x3F800000))) - _f(1.5)
    log = (((((L6 * m + L5) * m + L4) * m + L3) * m + L2) * m + L1) * m + L0
    radius = np.sqrt(LOG_SCALE * exponent - log)
    y = _f(np.int32(_u(_u(x >> _u(15)) & _u(0x7FFE))) - np.int32(16383)) * ANGLE
    square = y * y
    sine = ((S2 * square + S1) * square + S0) * y
    cosine = (C2 * square + C1) * square + C0
    one = _u(_bits(radius * (cosine - sine)) ^ _u(x & _u(0x80000000)))
    two = _u(_bits(radius * (cosine + sine)) ^ _u(_u(x << _u(1)) & _u(0x80000000)))
    return _number(one), _number(two)


@inline
def _rademacher(first: Any, second: Any, z: Any, words: Any) -> None:
    columns = len(z)
    group = (columns + 31) // 32
    for c in range(group):
        words[c] = _word(_u(c), first, second)
    for bit in range(32):
        part = z[bit * group : min(columns, (bit + 1) * group)]
        shift = _u(31 - bit)
        for c in range(len(part)):
            part[c] = _number(_u(_u(0x3F800000) | _u(_u(words[c] << shift) & _u(0x80000000))))


@inline
def _keep_random(first: Any, second: Any, below: Any, z: Any) -> None:
    columns = len(z)
    half = (columns + 1) // 2
    left, right = z[:half], z[half:]
    for c in range(half):
        word = _word(_u(c), first, second)
        left[c] = left[c] if _u(word & _u(0xFFFF)) < below else _f(0.0)
        if c < columns - half:
            right[c] = right[c] if _u(word >> _u(16)) < below else _f(0.0)


@_compiled
def _draw(key: Any, row: Any, signs: Any, z: Any, words: Any) -> None:
    first, second = _word(_u(2 * row), key[0], key[1]), _word(_u(2 * row + 1), key[0], key[1])
    if signs:
        _rademacher(first, second, z, words)
    else:
        _gaussian(first, second, z)


@_compiled
def _mask(kind: Any, key: Any, row: Any, limit: Any, w: Any, z: Any) -> None:
    """kind 1: keep where abs(w) <= limit; kind 2: keep a random share of limit / 65536."""
    if kind == 1:
        for c in range(len(z)):
            z[c] = z[c] if np.abs(w[c]) <= limit else _f(0.0)
    elif kind == 2:
        first, second = _word(_u(2 * row), key[0], key[1]), _word(_u(2 * row + 1), key[0], key[1])
        _keep_random(first, second, _u(limit), z)


def _load(source: Any, out: Any) -> None:
    """Read a row into fp32."""


@overload(_load)
def _load_of(source: Any, out: Any) -> Any:
    if source.dtype == types.float32:

        def load(source: Any, out: Any) -> None:
            for c in range(len(out)):
                out[c] = source[c]
    elif source.dtype == types.int16:

        def load(source: Any, out: Any) -> None:
            for c in range(len(out)):
                out[c] = _number(_u(_u(source[c]) << _u(16)))
    else:

        def load(source: Any, out: Any) -> None:
            for c in range(len(out)):
                out[c] = _from_half(source[c])

    return load


@inline
def _round_bf16(value: Any) -> Any:
    bits = _bits(value)
    return np.int16(_u(_u(bits + _u(0x7FFF) + _u(_u(bits >> _u(16)) & _u(1))) >> _u(16)))


def _store(source: Any, out: Any) -> None:
    """Round a row of fp32 to the nearest, ties to even."""


@overload(_store)
def _store_of(source: Any, out: Any) -> Any:
    if out.dtype == types.float32:

        def store(source: Any, out: Any) -> None:
            for c in range(len(out)):
                out[c] = source[c]
    elif out.dtype == types.int16:

        def store(source: Any, out: Any) -> None:
            for c in range(len(out)):
                out[c] = _round_bf16(source[c])
    else:

        def store(source: Any, out: Any) -> None:
            for c in range(len(out)):
                out[c] = _to_half(source[c])

    return store


def _store_randomly(source: Any, first: Any, second: Any, out: Any) -> None:
    """Round a row up or down, with the chances that make the mean exact."""


@overload(_store_randomly)
def _store_randomly_of(source: Any, first: Any, second: Any, out: Any) -> Any:
    if out.dtype == types.float32:

        def store(source: Any, first: Any, second: Any, out: Any) -> None:
            for c in range(len(out)):
                out[c] = source[c]
    elif out.dtype == types.int16:

        def store(source: Any, first: Any, second: Any, out: Any) -> None:
            for c in range(len(out)):
                word = _word(_u(c), first, second)
                out[c] = np.int16(_u(_u(_bits(source[c]) + _u(word >> _u(16))) >> _u(16)))
    else:

        def store(source: Any, first: Any, second: Any, out: Any) -> None:
            for c in range(len(out)):
                word = _word(_u(c), first, second)
                value = source[c]
                normal = _number(_u(_u(_bits(value) + _u(word >> _u(19))) & _u(0xFFFFE000)))
                size = np.floor(np.abs(value) * _f(16777216.0) + _f(_u(word >> _u(19))) * _f(1.0 / 8192.0))
                small = np.copysign(size * _f(1.0 / 16777216.0), value)
                out[c] = _to_half(small if np.abs(value) < _f(6.103515625e-05) else normal)

    return store


@_compiled
def fill(out: Any, numbers: Any, key: Any, signs: Any) -> None:
    """z of the rows `numbers` into `out` (rows, columns), fp32."""
    words = np.empty((out.shape[1] + 31) // 32, np.uint32)
    for at in range(out.shape[0]):
        _draw(key, numbers[at], signs, out[at], words)


@_compiled
def show(
    weight: Any, out: Any, start: Any, end: Any, keys: Any, which: Any, scales: Any, signs: Any, mask: Any,
    mask_key: Any, limit: Any, first_row: Any,
) -> None:  # fmt: skip
    """`out[p] = weight + scales[p]·z(keys[which[p]])` for the rows `start` … `end`, numbered from `first_row`."""
    columns = weight.shape[1]
    words = np.empty((columns + 31) // 32, np.uint32)
    z, w, total = np.empty(columns, _f), np.empty(columns, _f), np.empty(columns, _f)
    for row in range(start, end):
        _load(weight[row], w)
        drawn = -1
        for probe in range(len(which)):
            if which[probe] != drawn:
                drawn = which[probe]
                _draw(keys[drawn], first_row + row, signs, z, words)
                _mask(mask, mask_key, first_row + row, limit, w, z)
            scale = scales[probe]
            for c in range(columns):
                total[c] = w[c] + scale * z[c]
            _store(total, out[probe, row])


@_compiled
def move(
    weight: Any, beside: Any, start: Any, end: Any, keys: Any, amounts: Any, factor: Any, signs: Any, mask: Any,
    mask_key: Any, limit: Any, remedy: Any, rounding_key: Any,
) -> None:  # fmt: skip
    """`θ ← factor·θ + Σ amounts[k]·z(keys[k])`; remedy 0: none, 1: residual, 2: stochastic rounding, 3: master."""
    columns = weight.shape[1]
    words = np.empty((columns + 31) // 32, np.uint32)
    z, w, total = np.empty(columns, _f), np.empty(columns, _f), np.empty(columns, _f)
    change = np.empty(columns, _f)
    for row in range(start, end):
        _load(weight[row], w)
        change[:] = _f(0.0)
        for k in range(len(amounts)):
            _draw(keys[k], row, signs, z, words)
            _mask(mask, mask_key, row, limit, w, z)
            amount = amounts[k]
            for c in range(columns):
                change[c] = change[c] + amount * z[c]
        if remedy == 1:
            _load(beside[row], z)
            for c in range(columns):
                w[c] = w[c] + z[c] * DOWN
        elif remedy == 3:
            _load(beside[row], w)
        for c in range(columns):
            total[c] = factor * w[c] + change[c]
        if remedy == 2:
            first = _word(_u(2 * row), rounding_key[0], rounding_key[1])
            second = _word(_u(2 * row + 1), rounding_key[0], rounding_key[1])
            _store_randomly(total, first, second, weight[row])
        else:
            _store(total, weight[row])
        if remedy == 1:
            _load(weight[row], w)
            for c in range(columns):
                z[c] = (total[c] - w[c]) * UP
            _store(z, beside[row])
        elif remedy == 3:
            _store(total, beside[row])
