from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

from optaware.errors import InputError
from optaware.records import Interval
from optaware.stats._check import FloatArray, t_quantile, unit_interval, vector

__all__ = ["clopper_pearson", "mean_interval", "wilson"]


def wilson(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """Wilson score interval of a share.

    `(p̂ + z²/2n ± z·√(p̂(1−p̂)/n + z²/4n²)) / (1 + z²/n)` with `p̂ = successes/n` and `z` the normal quantile of
    `level`. It stays inside [0, 1] and has a width above zero even when all or none succeed.

    Args:
        successes: How many of the `n` succeeded.
        n: How many were tried, at least 1.
        level: Confidence level, between 0 and 1.

    Returns:
        Estimate and bounds, as shares from 0 to 1.

    Raises:
        InputError: The counts or the level make no sense.

    Source: Wilson, JASA 22 (1927); recommended by Brown, Cai and DasGupta, Statistical Science 16 (2001).
    """
    if n < 1 or not 0 <= successes <= n:
        raise InputError.of(
            "counts", f"{successes} of {n}", "0 ≤ successes ≤ n and n ≥ 1 are needed", "Correct the counts."
        )
    z = NormalDist().inv_cdf(0.5 + unit_interval(level, "level") / 2.0)
    share = successes / n
    scale = 1.0 + z * z / n
    centre = (share + z * z / (2 * n)) / scale
    half = z * math.sqrt(share * (1.0 - share) / n + z * z / (4 * n * n)) / scale
    # At the ends the bound equals the estimate exactly; rounding must not push it past.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Interval(estimate=share, low=low, high=high, level=level, method=f"Wilson score, n = {n}")


def clopper_pearson(successes: int, n: int, *, level: float = 0.95) -> Interval:
    """Exact (Clopper–Pearson) interval of a share: quantiles of Beta(k, n−k+1) and Beta(k+1, n−k) at (1∓level)/2.

    Its coverage is never below `level`, so it is wider than `wilson`.

    Args:
        successes: How many (k) of the `n` succeeded.
        n: How many were tried, at least 1.
        level: Confidence level, between 0 and 1.

    Raises:
        InputError: The counts or the level make no sense.

    Source: Clopper and Pearson, Biometrika 26 (1934).
    """
    from scipy.special import betaincinv

    if n < 1 or not 0 <= successes <= n:
        raise InputError.of(
            "counts", f"{successes} of {n}", "0 ≤ successes ≤ n and n ≥ 1 are needed", "Correct the counts."
        )
    tail = (1.0 - unit_interval(level, "level")) / 2.0
    low = 0.0 if successes == 0 else float(betaincinv(successes, n - successes + 1, tail))
    high = 1.0 if successes == n else float(betaincinv(successes + 1, n - successes, 1.0 - tail))
    return Interval(estimate=successes / n, low=low, high=high, level=level, method=f"Clopper–Pearson, n = {n}")


def mean_interval(values: Sequence[float] | FloatArray, *, level: float = 0.95) -> Interval:
    """Student's t interval of a mean, one value per seed: `x̄ ± t(level, S−1)·s/√S`.

    Args:
        values: One value per seed, S ≥ 2, in any unit.
        level: Confidence level, between 0 and 1.

    Returns:
        Estimate and bounds in the unit of `values`. They speak of further seeds, not of further test rows.

    Raises:
        InputError: Fewer than two values: one seed says nothing about the spread between seeds.

    Source: Student, Biometrika 6 (1908).
    """
    data = vector(values, "values")
    n = data.size
    unit_interval(level, "level")
    if n < 2:
        raise InputError.of(
            "one-seed", f"{n} value", "the spread between seeds needs two or more", "Run further seeds."
        )
    mean = float(data.mean())
    half = t_quantile(level, n - 1) * float(data.std(ddof=1)) / math.sqrt(n)
    return Interval(estimate=mean, low=mean - half, high=mean + half, level=level, method=f"t over {n} seeds")
