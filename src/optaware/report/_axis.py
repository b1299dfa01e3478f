"""Where an axis has its ticks, and what is written there."""

from __future__ import annotations

import math

__all__ = ["engineering", "nice_ticks"]


def nice_ticks(low: float, high: float, most: int = 5) -> list[tuple[float, str]]:
    """Round values between two bounds, with their labels: steps of 1, 2 or 5 times a power of ten, `most` at most."""
    span = high - low
    if not (math.isfinite(span) and span > 0):
        return [(low, f"{low:g}")]
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(power * each for each in (1, 2, 5, 10, 20) if span / (power * each) <= most)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [(index * step, f"{index * step:.{digits}f}".replace("-", "−")) for index in range(first, last + 1)]


def engineering(value: float) -> str:
    """A count in few letters: 950, 1.5k, 20k, 3M."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= 0.9995 * size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
