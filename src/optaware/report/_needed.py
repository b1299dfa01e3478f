"""How many test rows and seeds it would take to see one and two points, from the spread that a study has shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optaware.report._analysis import Comparison
from optaware.stats import crossed_examples_needed, crossed_power, crossed_seeds_needed, rows_needed

__all__ = ["EFFECTS", "Needed", "needed"]

EFFECTS = (0.01, 0.02)
"""Differences in accuracy that are asked about."""


@dataclass(frozen=True)
class Needed:
    """What one comparison would need for 80 % power at a two-sided level of 5 %, before correction.

    Attributes:
        comparison: The comparison.
        power: Chance of seeing 1 and 2 points with the seeds and rows that there are; None with one seed.
        rows: Test rows with these seeds, to see 1 and 2 points (with one seed: for one pair of trained models); None
            when no number does, because the seeds vary too much, or when all rows differ alike or none does.
        seeds: Paired seeds on these rows, for the same; None when no number does, because the rows are too few, or with
            one seed, which tells nothing of others.
    """

    comparison: Comparison
    power: tuple[float | None, ...]
    rows: tuple[int | None, ...]
    seeds: tuple[int | None, ...]


def needed(comparisons: Sequence[Comparison]) -> tuple[Needed, ...]:
    """By the power of the test that the verdicts go by (`stats.crossed_power`); with one seed by McNemar's (Connor)."""
    return tuple(_needed(item) for item in comparisons)


def _needed(item: Comparison) -> Needed:
    spread, seeds, rows = item.spread, len(item.contrast.seeds), item.contrast.n_examples
    if spread is None:
        one = tuple(_one_pair(effect, item.disagreement) for effect in EFFECTS)
        return Needed(item, (None,) * len(EFFECTS), one, (None,) * len(EFFECTS))
    if spread.seed == spread.example == spread.rest == 0:
        return Needed(item, *((None,) * len(EFFECTS),) * 3)
    return Needed(
        item,
        tuple(crossed_power(effect, spread, seeds=seeds, examples=rows) for effect in EFFECTS),
        tuple(crossed_examples_needed(effect, spread, seeds=seeds) for effect in EFFECTS),
        tuple(crossed_seeds_needed(effect, spread, examples=rows) for effect in EFFECTS),
    )


def _one_pair(effect: float, disagreement: float) -> int | None:
    return rows_needed(effect, max(effect, disagreement)) if disagreement > 0 else None
