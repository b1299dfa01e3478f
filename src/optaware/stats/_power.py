from __future__ import annotations

import math
from statistics import NormalDist

from optaware.errors import InputError
from optaware.stats._check import unit_interval

__all__ = ["rows_needed", "seeds_needed"]

_MOST_SEEDS = 100_000


def rows_needed(difference: float, disagreement: float, *, power: float = 0.8, level: float = 0.95) -> int:
    """Test rows needed to see an accuracy difference between two models by a paired test.

    `N = ((z_{level}·√ψ + z_{power}·√(ψ − δ²)) / δ)²`, rounded up.

    Args:
        difference: δ, the difference to be seen, as a share (0.02 for two points).
        disagreement: ψ, share of rows on which exactly one of the two models is right; at least |δ|.
        power: Chance of seeing it, between 0 and 1.
        level: One minus the two-sided test level.

    Returns:
        Rows for one pair of models. Averaging over seeds lowers ψ and with it the rows.

    Raises:
        InputError: The shares make no sense together.

    Source: Connor, Biometrics 43 (1987); Miettinen, Biometrics 24 (1968).
    """
    delta = abs(difference)
    if not 0.0 < delta <= disagreement <= 1.0:
        raise InputError.of(
            "shares",
            f"difference {difference}, disagreement {disagreement}",
            "0 < |difference| ≤ disagreement ≤ 1 is needed",
            "Give both as shares.",
        )
    z_level = NormalDist().inv_cdf(0.5 + unit_interval(level, "level") / 2.0)
    z_power = NormalDist().inv_cdf(unit_interval(power, "power"))
    spread = z_level * math.sqrt(disagreement) + z_power * math.sqrt(disagreement - delta * delta)
    return math.ceil((spread / delta) ** 2)


def seeds_needed(difference: float, spread: float, *, power: float = 0.8, level: float = 0.95) -> int:
    """Seeds needed to see a mean difference by a paired t test over seeds.

    The smallest S ≥ 2 with `P(|T| > t(level, S−1)) ≥ power`, T noncentral t with S−1 degrees of freedom and
    noncentrality `|δ|·√S/σ`.

    Args:
        difference: δ, the mean difference to be seen.
        spread: σ, standard deviation of the paired difference between seeds, in the same unit.
        power: Chance of seeing it, between 0 and 1.
        level: One minus the two-sided test level.

    Returns:
        Number of seeds.

    Raises:
        InputError: δ is zero, σ is negative, or more than 100 000 seeds would be needed.

    Source: the power function of Student's t test, e.g. Cohen, Statistical Power Analysis (1988), chapter 2.
    """
    if difference == 0 or spread < 0:
        raise InputError.of(
            "effect", f"difference {difference}, spread {spread}", "δ ≠ 0 and σ ≥ 0 are needed", "Correct them."
        )
    unit_interval(power, "power")
    unit_interval(level, "level")
    if spread == 0 or _power(2, abs(difference) / spread, level) >= power:
        return 2
    low, high = 2, 4
    while _power(high, abs(difference) / spread, level) < power:
        low, high = high, high * 2
        if high > _MOST_SEEDS:
            raise InputError.of(
                "effect-too-small",
                f"difference {difference}, spread {spread}",
                f"more than {_MOST_SEEDS} seeds would be needed",
                "Look for a larger difference.",
            )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(middle, abs(difference) / spread, level) >= power else (middle, high)
    return high


def _power(seeds: int, effect: float, level: float) -> float:
    from scipy.special import nctdtr, stdtrit

    df = seeds - 1
    bound = float(stdtrit(df, 0.5 + level / 2.0))
    shift = effect * math.sqrt(seeds)
    # P(T < −bound) is left out when the shift is large: nctdtr loses accuracy there and the term is below 1e-9.
    below = float(nctdtr(df, shift, -bound)) if shift < 5 else 0.0
    return 1.0 - float(nctdtr(df, shift, bound)) + below
