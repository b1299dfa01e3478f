"""How many test rows and seeds it would take to see one and two points, from the spread that a study has shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optaware.errors import InputError
from optaware.report._analysis import Comparison
from optaware.stats import rows_needed, seeds_needed

__all__ = ["Needed", "needed"]

_EFFECTS = (0.01, 0.02)


@dataclass(frozen=True)
class Needed:
    """What one comparison would need for 80 % power at a two-sided level of 5 %, before correction.

    Attributes:
        comparison: The comparison.
        rows: Test rows for one pair of runs, to see 1 and 2 points; None when the arms never differ.
        seeds: Paired seeds on these test rows, for the same; None with one seed, or when more than 100 000.
    """

    comparison: Comparison
    rows: tuple[int | None, ...]
    seeds: tuple[int | None, ...]


def needed(comparisons: Sequence[Comparison]) -> tuple[Needed, ...]:
    """Rows by Connor's formula from the share of rows on which the arms disagree; seeds by the paired t test's power
    from the spread of the difference between seeds. The two answer different questions: further rows, or further seeds.
    """
    return tuple(
        Needed(
            item,
            tuple(_rows(effect, item.disagreement) for effect in _EFFECTS),
            tuple(_seeds(effect, item.seed_spread) for effect in _EFFECTS),
        )
        for item in comparisons
    )


def _rows(effect: float, disagreement: float) -> int | None:
    return rows_needed(effect, max(effect, disagreement)) if disagreement > 0 else None


def _seeds(effect: float, spread: float | None) -> int | None:
    if spread is None:
        return None
    try:
        return seeds_needed(effect, spread)
    except InputError:
        return None
