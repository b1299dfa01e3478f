from __future__ import annotations

from dataclasses import dataclass
from math import comb, sqrt
from typing import Any, Literal

import numpy as np

from optaware.errors import InputError
from optaware.stats._bootstrap import two_way_variance
from optaware.stats._check import FloatArray, matrix

__all__ = ["PairedTest", "crossed_test", "mcnemar", "sign_flip_test"]

_EXACT_UP_TO = 14
"""2¹⁴ sign patterns are listed rather than drawn."""
_SIGNS_AT_ONCE = 4_000_000


@dataclass(frozen=True)
class PairedTest:
    """A two-sided p-value and how it was got.

    Attributes:
        p_value: Probability, if the two arms were interchangeable, of a difference at least as large as the one seen.
        smallest: The smallest p-value that this test could have given on data of this size.
        method: The test in words.
    """

    p_value: float
    smallest: float
    method: str


def mcnemar(arm: Any, baseline: Any) -> PairedTest:
    """Exact McNemar test of two models on the same examples, for one pair of runs.

    With `b` examples right only in `arm` and `c` right only in `baseline`, under H0 `b ~ Binomial(b + c, ½)`:
    `p = min(1, 2·P(X ≤ min(b, c)))`.

    Args:
        arm: Correctness, 0 or 1, [examples].
        baseline: The same for the baseline.

    Returns:
        Two-sided p-value; 1 when the two never disagree.

    Raises:
        InputError: Different lengths, or values other than 0 and 1.

    Source: McNemar, Psychometrika 12 (1947); for classifiers, Dietterich, Neural Computation 10 (1998).
    """
    difference = _difference(arm, baseline)
    if difference.shape[0] != 1 or not np.isin(difference, (-1.0, 0.0, 1.0)).all():
        raise InputError.of(
            "not-one-pair", f"shape {difference.shape}", "one row of 0 and 1 per arm is needed", "Give one seed's pair."
        )
    gained, lost = int((difference > 0).sum()), int((difference < 0).sum())
    n = gained + lost
    tail = sum(comb(n, k) for k in range(min(gained, lost) + 1))
    return PairedTest(
        p_value=float(min(1, 2 * tail / 2**n)),
        smallest=float(min(1, 2 / 2**n)),
        method=f"exact McNemar, {gained} gained, {lost} lost",
    )


def sign_flip_test(
    arm: Any,
    baseline: Any,
    *,
    rng: np.random.Generator,
    draws: int = 10_000,
    unit: Literal["examples", "seeds"] = "examples",
) -> PairedTest:
    """Paired randomisation test: is the mean difference between two arms larger than relabelling the arms gives?

    `d̄[u]` is the difference `arm − baseline` of unit u, averaged over the other axis; the statistic is `|Σ d̄[u]|`.
    H0: within every unit the two arms are exchangeable, so every sign pattern of `d̄` is equally likely.

    - `unit="examples"`: an example's difference, averaged over seeds, changes sign as a whole, so the copies of one
      example under several seeds are never treated as independent. The question is about *these trained models* on
      further examples; other seeds are not covered, so read it beside an interval that covers them.
    - `unit="seeds"`: a seed's mean difference changes sign. The question is about further seeds on *these examples*.
      With S seeds no p-value below 2/2^S can come out: 0.5 for two seeds, 0.25 for three, 0.03 for six.

    Up to 14 units that differ, all patterns are listed and p is exact; beyond, `p = (1 + hits)/(1 + draws)`, which
    keeps the test's level (Phipson and Smyth 2010).

    Args:
        arm: Correctness or any score, [seeds, examples]; one axis counts as one seed.
        baseline: The same seeds and examples for the baseline.
        rng: Source of the draws; not used when the test is exact.
        draws: Sign patterns to draw.
        unit: What is exchangeable.

    Returns:
        Two-sided p-value, the smallest one possible here, and the method in words.

    Raises:
        InputError: The arrays differ in shape, or are not finite.

    Source: Fisher, The Design of Experiments (1935); Phipson and Smyth, SAGMB 9 (2010).
    """
    difference = _difference(arm, baseline)
    means = difference.mean(axis=0 if unit == "examples" else 1)
    what = f"sign flip over {means.size} {unit if means.size != 1 else unit[:-1]}"
    if unit == "examples" and difference.shape[0] > 1:
        what += f" × {difference.shape[0]} seeds"
    moving = means[means != 0.0]
    if moving.size == 0:
        return PairedTest(1.0, 1.0, f"{what}, no unit differs")
    if moving.size <= _EXACT_UP_TO:
        share = float(_as_large(moving, _all_signs(moving.size)).mean())
        return PairedTest(share, 2.0 / 2**moving.size, f"{what}, exact")
    # Units of one magnitude are interchangeable: the sum of their signs is a binomial number, drawn at once.
    magnitudes, sizes = np.unique(np.abs(moving).round(12), return_counts=True)
    seen = abs(float(moving.sum()))
    hits, left = 0, draws
    while left > 0:
        size = min(left, max(1, _SIGNS_AT_ONCE // magnitudes.size))
        sums = (2.0 * rng.binomial(sizes, 0.5, (size, magnitudes.size)) - sizes) @ magnitudes
        hits += int((np.abs(sums) >= seen - 1e-9 * max(1.0, seen)).sum())
        left -= size
    return PairedTest((1 + hits) / (1 + draws), 1 / (1 + draws), f"{what}, {draws} draws")


def crossed_test(arm: Any, baseline: Any) -> PairedTest:
    """Is the mean difference between two arms zero, for further seeds and further examples at once?

    `t = d̄/√V` against Student's t with df degrees of freedom, V and df by the two-way split of the variance that sets
    the width of `crossed_bootstrap`: the p-value that belongs beside its interval.

    Args:
        arm: Correctness or any score, [seeds, examples], at least two seeds.
        baseline: The same seeds and examples for the baseline.

    Returns:
        Two-sided p-value; 1 when no pair differs, and for one example, which tells nothing of others. Where all
        examples differ by the same amount there is no spread for a t test; then the sign test over examples,
        `min(1, 2/2^N)`.

    Raises:
        InputError: The arrays differ in shape, are not finite, or have one seed only.

    Source: V, Cameron, Gelbach and Miller, JBES 29 (2011); df, Satterthwaite, Biometrics Bulletin 2 (1946).
    """
    from scipy.special import stdtr

    difference = _difference(arm, baseline)
    seeds, examples = difference.shape
    if seeds < 2:
        raise InputError.of("one-seed", f"{seeds} seed", "it tells nothing of further seeds", "Use mcnemar.")
    what = f"t test over {seeds} seeds × {examples} examples"
    if not difference.any():
        return PairedTest(1.0, 0.0, f"{what}, no pair differs")
    if examples < 2:
        return PairedTest(1.0, 1.0, f"{what}, which tells nothing of other examples")
    variance, df = two_way_variance(difference)
    if variance == 0.0:
        share = float(min(1.0, 2.0 * 0.5**examples))
        return PairedTest(share, share, f"exact sign test, {examples} examples differ alike under {seeds} seeds")
    t = abs(float(difference.mean())) / sqrt(variance)
    return PairedTest(float(2 * stdtr(df, -t)), 0.0, f"{what}, {df:.1f} degrees of freedom")


def _difference(arm: Any, baseline: Any) -> FloatArray:
    left, right = matrix(arm, "arm"), matrix(baseline, "baseline")
    if left.shape != right.shape:
        raise InputError.of(
            "not-paired",
            f"arm {left.shape} and baseline {right.shape}",
            "pairs need the same seeds and examples in both arms",
            "Keep only what both arms have.",
        )
    return left - right


def _all_signs(n: int) -> FloatArray:
    patterns = np.arange(2**n)[:, None] >> np.arange(n)
    return np.asarray((patterns & 1) * 2.0 - 1.0, dtype=np.float64)


def _as_large(values: FloatArray, signs: FloatArray) -> Any:
    # Sums of thirds are not exact in binary: without the slack, ties with the observed sum would be lost.
    seen = abs(float(values.sum()))
    return np.abs(signs @ values) >= seen - 1e-9 * max(1.0, seen)
