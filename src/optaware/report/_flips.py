"""Test rows that one arm gets right and the other wrong, with their texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from optaware.report._analysis import Comparison, Family, correctness, shared_ids
from optaware.report._arms import Arm, ArmKey, Collected

__all__ = ["Flip", "FlipGroup", "Texts", "flip_groups"]

Texts = Callable[[str], Mapping[str, tuple[str, str]]]
"""Task → texts of its test rows by id: the prompt, and the right answer."""
_SHOWN = 6
"""Rows shown per comparison and way; those that flip under most seeds come first."""
_LONGEST = 700


@dataclass(frozen=True)
class Flip:
    """One test row: under how many of the paired seeds each arm answers it rightly."""

    example_id: str
    way: str
    """`lost`: right with the baseline, wrong with the arm; `gained`: the other way."""
    arm_right: int
    baseline_right: int
    seeds: int
    prompt: str
    answer: str


@dataclass(frozen=True)
class FlipGroup:
    """The flips of one comparison; counts are of pairs of predictions, over all seeds."""

    comparison: Comparison
    gained: int
    lost: int
    pairs: int
    flips: tuple[Flip, ...]


def flip_groups(families: Sequence[Family], collected: Collected, texts: Texts | None) -> tuple[FlipGroup, ...]:
    """Flips of every comparison with the baseline's data.

    Args:
        families: The study's comparisons.
        collected: Its runs.
        texts: Where the rows' texts come from; None: ids only. It is asked once per task.
    """
    arms = {arm.key: arm for arm in collected.arms}
    known: dict[str, Mapping[str, tuple[str, str]]] = {}
    groups = []
    for item in (each for family in families if family.key == "baseline" for each in family.comparisons):
        contrast = item.contrast
        if texts is not None and contrast.task not in known:
            known[contrast.task] = texts(contrast.task)
        arm = arms[ArmKey(contrast.model, contrast.task, contrast.method, contrast.arm)]
        baseline = arms[ArmKey(contrast.model, contrast.task, contrast.method, contrast.baseline)]
        groups.append(_group(item, arm, baseline, known.get(contrast.task, {})))
    return tuple(groups)


def _group(item: Comparison, arm: Arm, baseline: Arm, texts: Mapping[str, tuple[str, str]]) -> FlipGroup:
    seeds = set(item.contrast.seeds)
    left = [each for each in arm.scored if each.run.spec.seed in seeds]
    right = [each for each in baseline.scored if each.run.spec.seed in seeds]
    ids = shared_ids([*left, *right])
    mine, theirs = correctness(left, ids), correctness(right, ids)
    ups, downs = (mine > theirs).sum(axis=0), (mine < theirs).sum(axis=0)
    arm_right, baseline_right = mine.sum(axis=0), theirs.sum(axis=0)
    flips = []
    for way, counts in (("lost", downs - ups), ("gained", ups - downs)):
        order = sorted((index for index in range(len(ids)) if counts[index] > 0), key=lambda index: -counts[index])
        for index in order[:_SHOWN]:
            prompt, answer = texts.get(ids[index], ("", ""))
            flips.append(
                Flip(
                    ids[index],
                    way,
                    int(arm_right[index]),
                    int(baseline_right[index]),
                    len(left),
                    _short(prompt),
                    answer.strip(),
                )
            )
    return FlipGroup(item, int(ups.sum()), int(downs.sum()), mine.size, tuple(flips))


def _short(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _LONGEST else text[: _LONGEST // 2] + " […] " + text[-_LONGEST // 2 :]
