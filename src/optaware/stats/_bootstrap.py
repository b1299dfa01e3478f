from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np

from optaware.errors import InputError
from optaware.records import Interval
from optaware.stats._check import FloatArray, matrix, t_quantile, unit_interval

__all__ = ["crossed_bootstrap", "paired_bootstrap", "two_way_variance"]

_CELLS_AT_ONCE = 4_000_000
_CELLS_IN_CACHE = 32_000
_MOST_KINDS = 256
"""Different columns up to which their counts are drawn; correctness of S seeds has at most 2^S kinds, differences
3^S."""


def paired_bootstrap(
    arm: Any, baseline: Any, *, rng: np.random.Generator, draws: int = 10_000, level: float = 0.95
) -> Interval:
    """Interval of the accuracy difference between two arms, over seeds and examples at once.

    With `d[s, e] = arm[s, e] − baseline[s, e]`, the estimate is the mean of `d`; see `crossed_bootstrap` for the
    interval. Pairing takes out what makes an example hard for both arms and what a seed does to both.

    Args:
        arm: Correctness, 0 or 1 (or any score), [seeds, examples]; one axis counts as one seed.
        baseline: The same seeds (rows) and examples (columns) for the baseline.
        rng: Source of the draws.
        draws: Bootstrap samples.
        level: Confidence level, between 0 and 1.

    Returns:
        Difference `arm − baseline` with bounds, in the unit of the scores. Where all pairs differ alike, or none does,
        a bootstrap would give an interval without width; then the bounds are those of the share of examples that could
        be otherwise, the scores being shares (0 to 1).

    Raises:
        InputError: The two arrays differ in shape, or are not finite.
    """
    left, right = matrix(arm, "arm"), matrix(baseline, "baseline")
    if left.shape != right.shape:
        raise InputError.of(
            "not-paired",
            f"arm {left.shape} and baseline {right.shape}",
            "pairs need the same seeds and examples in both arms",
            "Keep only what both arms have.",
        )
    difference = left - right
    if (difference == difference[0, 0]).all():
        return _all_alike(float(difference[0, 0]), difference.shape[1], unit_interval(level, "level"))
    return _no_surer_than_the_test(crossed_bootstrap(difference, rng=rng, draws=draws, level=level), difference)


def _no_surer_than_the_test(interval: Interval, difference: FloatArray) -> Interval:
    """The interval, with a bound that leaves zero out although the t test with the same variance (`crossed_test`) does
    not, moved to the t interval's, `estimate ± t(level, df)·√V`.

    Where few cells differ the draws are lumps, often with a quantile at zero itself; scaled to a smaller variance it
    would pass to the other side. Of 300 simulated studies without a true difference (3 seeds × 100 rows, about one
    differing row a pair of runs) 13 % had an interval beside zero, and 0.3 % have it now.
    """
    if difference.shape[0] < 2:
        return interval
    variance, df = two_way_variance(difference)
    half = t_quantile(interval.level, df) * math.sqrt(variance)
    changes = {}
    if interval.low > 0 >= interval.estimate - half:
        changes["low"] = interval.estimate - half
    if interval.high < 0 <= interval.estimate + half:
        changes["high"] = interval.estimate + half
    return interval.model_copy(update=changes)


def _all_alike(value: float, examples: int, level: float) -> Interval:
    """Exact (Clopper–Pearson) bound on the share of examples that could be otherwise, when none of those seen is; a
    difference of shares is then anything from −1 to 1."""
    bound = 1.0 - ((1.0 - level) / 2.0) ** (1.0 / examples)
    what = "no pair differs" if value == 0 else "all pairs differ alike"
    return Interval(
        estimate=value,
        low=value - bound * max(0.0, 1.0 + value),
        high=value + bound * max(0.0, 1.0 - value),
        level=level,
        method=f"{what}: exact bound on the share that could{'' if value == 0 else ' be otherwise'}, n = {examples}",
    )


def crossed_bootstrap(values: Any, *, rng: np.random.Generator, draws: int = 10_000, level: float = 0.95) -> Interval:
    """Interval of the mean of `values` when both its rows (seeds) and its columns (examples) are samples.

    Each draw takes S−1 of the S seeds and N of the N examples, with replacement and independently, and averages the
    cells where they cross (S−1, because a bootstrap of S values has (S−1)/S of the right variance, and S may be 3).
    The quantiles of the draws give the interval its shape; its width is then set by the two-way split of the variance

    `A = var(seed means)/S`, `B = var(example means)/N`, `C = var(interaction)/(S·N)`, `V = max(A + B − C, A, B)`,

    that is, the distances of the quantiles from the estimate are multiplied by `t(level, df)/z(level)·√V/sd(draws)`,
    with Satterthwaite's `df = V² / (A²/(S−1) + B²/(N−1) + C²/((S−1)(N−1)))`. Both factors mend a known fault:
    crossing two samples counts the interaction up to three times (Owen 2007), so raw quantiles are too wide where the
    interaction is large; and two or three seeds estimate their own spread badly, so they are too narrow where seeds
    matter most. When examples cause most of the variance df is large, when seeds do it is near S−1.

    Quantiles rather than BCa: BCa's acceleration is a skewness, which three seeds cannot show.
    With one seed only examples are drawn, and the interval says nothing about other seeds.

    Args:
        values: Scores [seeds, examples]; one axis counts as one seed.
        rng: Source of the draws.
        draws: Bootstrap samples, at least 100.
        level: Confidence level, between 0 and 1.

    Returns:
        Mean with bounds, in the unit of `values`.

    Raises:
        InputError: The array is empty, has the wrong shape, or is not finite; `draws` is too small.

    Source: pigeonhole bootstrap, Owen, Annals of Applied Statistics 1 (2007); n−1 draws, Rao and Wu, JASA 83 (1988);
    expanded quantiles, Hesterberg, The American Statistician 69 (2015); V, Cameron, Gelbach and Miller, JBES 29 (2011).
    """
    data = matrix(values, "values")
    unit_interval(level, "level")
    if draws < 100:
        raise InputError.of("draws", f"{draws} draws", "quantiles of so few mean nothing", "Take 1000 or more.")
    seeds, examples = data.shape
    estimate = float(data.mean())
    means = _draw_means(data, rng, draws)
    tail = (1.0 - level) / 2.0
    variance, df = two_way_variance(data)
    scale, spread = 1.0, float(means.std())
    if variance > 0 and spread > 0:
        scale = t_quantile(level, df) / NormalDist().inv_cdf(1.0 - tail) * math.sqrt(variance) / spread
    low, high = np.quantile(means, [tail, 1.0 - tail])
    what = f"{seeds} seeds × {examples} examples" if seeds > 1 else f"{examples} examples, one seed"
    return Interval(
        estimate=estimate,
        low=estimate + scale * min(0.0, float(low) - estimate),
        high=estimate + scale * max(0.0, float(high) - estimate),
        level=level,
        method=f"bootstrap over {what}, {draws} draws",
    )


def _draw_means(data: FloatArray, rng: np.random.Generator, draws: int) -> FloatArray:
    """Means of crossed draws. Examples with the same scores under every seed are interchangeable, so how often each
    kind is drawn is drawn at once (multinomial): the same distribution as drawing them one by one, at a fraction of the
    time.
    """
    seeds, examples = data.shape
    taken = max(1, seeds - 1)
    kinds, counts = np.unique(data, axis=1, return_counts=True)
    few = kinds.shape[1] <= _MOST_KINDS
    means = np.empty(draws)
    step = max(1, _CELLS_AT_ONCE // examples)
    for start in range(0, draws, step):
        size = min(step, draws - start)
        rows = rng.integers(0, seeds, (size, taken))
        weights = np.zeros((size, seeds))
        np.add.at(weights, (np.arange(size)[:, None], rows), 1.0 / taken)
        if few:
            drawn = rng.multinomial(examples, counts / examples, size)
            means[start : start + size] = ((weights @ kinds) * drawn).sum(axis=1) / examples
        else:
            means[start : start + size] = _draw_columns(weights @ data, rng)
    return means


def _draw_columns(values: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Row by row, the mean of `values` [draws, examples] over as many columns, drawn with replacement.

    A few rows at a time, so that everything stays in cache; a generator gives the same numbers in parts as at once.
    """
    draws, examples = values.shape
    means = np.empty(draws)
    step = max(1, _CELLS_IN_CACHE // examples)
    for start in range(0, draws, step):
        part = values[start : start + step]
        places = rng.integers(0, examples, part.shape) + (np.arange(len(part)) * examples)[:, None]
        means[start : start + step] = part.ravel().take(places).mean(axis=1)
    return means


def two_way_variance(data: FloatArray) -> tuple[float, float]:
    """Variance of the mean of [seeds, examples], and its Satterthwaite degrees of freedom."""
    seeds, examples = data.shape
    by_seed = float(data.mean(axis=1).var(ddof=1)) / seeds if seeds > 1 else 0.0
    by_example = float(data.mean(axis=0).var(ddof=1)) / examples if examples > 1 else 0.0
    if seeds == 1 or examples == 1:
        return by_seed + by_example, float(max(1, seeds - 1, examples - 1))
    rest = data - data.mean(axis=0) - data.mean(axis=1, keepdims=True) + data.mean()
    cells = (seeds - 1) * (examples - 1)
    interaction = float((rest**2).sum()) / cells / (seeds * examples)
    # By chance the sum can come out below one of its parts; the variance of the mean is never less than either.
    variance = max(by_seed + by_example - interaction, by_seed, by_example)
    spread = by_seed**2 / (seeds - 1) + by_example**2 / (examples - 1) + interaction**2 / cells
    return variance, variance**2 / spread if spread > 0 else float(cells)
