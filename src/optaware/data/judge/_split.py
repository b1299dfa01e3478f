"""Which labelled pairs a judge is refined on and which it is measured on."""

from __future__ import annotations

from collections.abc import Sequence

from optaware._io import text_sha256
from optaware.data.judge._measure import LabelledPair
from optaware.errors import InputError

__all__ = ["FEWEST_MEASURED", "split_pairs"]

FEWEST_MEASURED = 5


def split_pairs(
    pairs: Sequence[LabelledPair], share: float, seed: int
) -> tuple[list[LabelledPair], list[LabelledPair]]:
    """Split pairs into those for tuning and those for measuring, by row and with either answer in both parts.

    All pairs of one row go to the same part, so that no measured pair has its original among the examples. Rows are
    put in an order that only their ids and the seed decide; those that hold the rarer answer and those that do not are
    divided apart.

    Args:
        pairs: Labelled pairs.
        share: Share of the rows for tuning, from 0 (none) to below 1.
        seed: Decides the order.

    Returns:
        Tuning pairs and measured pairs, each in the order of `pairs`.

    Raises:
        InputError: Too few pairs are left to measure on.
    """
    rows: dict[str, list[LabelledPair]] = {}
    for pair in pairs:
        rows.setdefault(pair.example.id, []).append(pair)
    answers = [pair.answer for pair in pairs]
    rarer = "same" if 2 * answers.count("same") < len(answers) else "not the same"
    tuning: set[str] = set()
    for wanted in (True, False):
        group = [name for name, of in rows.items() if any(pair.answer == rarer for pair in of) is wanted]
        group.sort(key=lambda name: text_sha256(f"calibrate:{seed}:{name}"))
        tuning |= set(group[: round(share * len(group))])
    chosen = [pair for pair in pairs if pair.example.id in tuning]
    left = [pair for pair in pairs if pair.example.id not in tuning]
    if len(left) < FEWEST_MEASURED:
        raise InputError.of(
            "pairs-too-few",
            f"{len(pairs)} labelled pairs, {len(left)} of them to measure on",
            f"fewer than {FEWEST_MEASURED} say nothing about a judge",
            "Label more pairs (the paper: 40), or lower --tuning.",
        )
    return chosen, left
