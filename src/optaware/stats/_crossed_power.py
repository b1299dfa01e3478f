from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from optaware.errors import InputError
from optaware.stats._check import FloatArray, matrix, unit_interval

__all__ = ["Spread", "crossed_examples_needed", "crossed_power", "crossed_seeds_needed", "crossed_spread"]

_MOST_SEEDS = 10_000
_MOST_EXAMPLES = 100_000_000


@dataclass(frozen=True)
class Spread:
    """Where the differences `d[s, e]` of two arms vary: `d = δ + seed[s] + example[e] + rest[s, e]`.

    Attributes:
        seed: Variance from seed to seed, all examples alike.
        example: Variance from example to example, all seeds alike.
        rest: Variance of what is left, drawn anew for each seed and example.
    """

    seed: float
    example: float
    rest: float


def crossed_spread(arm: Any, baseline: Any) -> Spread:
    """Estimate the three variances from paired scores, by the mean squares of a two-way layout.

    `rest = MS(s×e)`, `seed = max(0, var(seed means) − rest/N)`, `example = max(0, var(example means) − rest/S)`.

    Args:
        arm: Correctness or any score, [seeds, examples], two or more of each.
        baseline: The same seeds and examples for the baseline.

    Raises:
        InputError: The arrays differ in shape, are not finite, or have one seed or one example only.

    Source: Searle, Casella and McCulloch, Variance Components (1992), chapter 4.
    """
    left, right = matrix(arm, "arm"), matrix(baseline, "baseline")
    if left.shape != right.shape or min(left.shape) < 2:
        raise InputError.of(
            "not-paired",
            f"arm {left.shape} and baseline {right.shape}",
            "two or more of the same seeds and examples are needed in both arms",
            "Run further seeds.",
        )
    difference: FloatArray = left - right
    seeds, examples = difference.shape
    by_seed, by_example = difference.mean(axis=1), difference.mean(axis=0)
    rest_of = difference - by_example - by_seed[:, None] + difference.mean()
    rest = float((rest_of**2).sum()) / ((seeds - 1) * (examples - 1))
    return Spread(
        seed=max(0.0, float(by_seed.var(ddof=1)) - rest / examples),
        example=max(0.0, float(by_example.var(ddof=1)) - rest / seeds),
        rest=rest,
    )


def crossed_power(difference: float, spread: Spread, *, seeds: int, examples: int, level: float = 0.95) -> float:
    """Chance that `crossed_test` sees a mean difference, with so many seeds and examples.

    `P(|T| > t(level, df))`, T noncentral t with noncentrality `|δ|/√V`,
    `V = seed/S + example/N + rest/(S·N)` and df by Satterthwaite from the expected parts, as in the test.

    Args:
        difference: δ, in the unit of the scores.
        spread: The variances of a single difference.
        seeds: S, two or more.
        examples: N, two or more.
        level: One minus the two-sided test level.
    """
    unit_interval(level, "level")
    if seeds < 2 or examples < 2:
        raise InputError.of("one-seed", f"{seeds} seeds, {examples} examples", "two of each are needed", "Take more.")
    rest = spread.rest / (seeds * examples)
    by_seed, by_example = spread.seed / seeds + rest, spread.example / examples + rest
    variance = by_seed + by_example - rest
    if variance == 0.0:
        return float(difference != 0)
    parts = by_seed**2 / (seeds - 1) + by_example**2 / (examples - 1) + rest**2 / ((seeds - 1) * (examples - 1))
    return _beyond(abs(difference) / math.sqrt(variance), variance**2 / parts, level)


def crossed_seeds_needed(
    difference: float, spread: Spread, *, examples: int, power: float = 0.8, level: float = 0.95
) -> int | None:
    """Paired seeds with which `crossed_test` sees a difference on so many examples; None when 10 000 do not do.

    However many seeds there are, the examples are still a sample: their share of the variance, `example/N`, stays.
    """
    _check(difference, power)
    return _smallest(
        lambda seeds: crossed_power(difference, spread, seeds=seeds, examples=examples, level=level) >= power,
        _MOST_SEEDS,
    )


def crossed_examples_needed(
    difference: float, spread: Spread, *, seeds: int, power: float = 0.8, level: float = 0.95
) -> int | None:
    """Test examples with which `crossed_test` sees a difference over so many seeds; None when 10⁸ do not do."""
    _check(difference, power)
    return _smallest(
        lambda examples: crossed_power(difference, spread, seeds=seeds, examples=examples, level=level) >= power,
        _MOST_EXAMPLES,
    )


def _check(difference: float, power: float) -> None:
    unit_interval(power, "power")
    if difference == 0:
        raise InputError.of("effect", "difference 0", "nothing can be seen of it", "Give the difference to be seen.")


def _smallest(enough: Callable[[int], bool], most: int) -> int | None:
    """The smallest count from 2 on that is enough, where more is never worse."""
    if enough(2):
        return 2
    low, high = 2, 4
    while not enough(high):
        low, high = high, high * 2
        if high > most:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def _beyond(shift: float, df: float, level: float) -> float:
    from scipy.special import nctdtr, stdtrit

    bound = float(stdtrit(df, 0.5 + level / 2.0))
    # P(T < −bound) is left out when the shift is large: nctdtr loses accuracy there and the term is below 1e-9.
    below = float(nctdtr(df, shift, -bound)) if shift < 5 else 0.0
    return 1.0 - float(nctdtr(df, shift, bound)) + below
