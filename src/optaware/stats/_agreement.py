from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence

from optaware.errors import InputError

__all__ = ["cohen_kappa"]


def cohen_kappa(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Agreement of two raters beyond chance: `κ = (p_o − p_e)/(1 − p_e)`.

    `p_o` is the share of items on which they agree; `p_e` the share expected if each kept their own answer frequencies
    but answered independently.

    Args:
        first: The first rater's answers, one per item.
        second: The second rater's, in the same order.

    Returns:
        κ: 1 for full agreement, 0 for chance, below 0 for less than chance; 1 when both always give one same answer
        (κ is 0/0 there, and they agree).

    Raises:
        InputError: No items, or different numbers of them.

    Source: Cohen, Educational and Psychological Measurement 20 (1960).
    """
    n = len(first)
    if n == 0 or n != len(second):
        raise InputError.of(
            "not-paired", f"{n} and {len(second)} answers", "both raters must rate the same items", "Match the items."
        )
    observed = sum(a == b for a, b in zip(first, second, strict=True))
    counts = Counter(first), Counter(second)
    chance = sum(counts[0][answer] * counts[1][answer] for answer in counts[0])
    if chance == n * n:
        return 1.0
    return (observed * n - chance) / (n * n - chance)
