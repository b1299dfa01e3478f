"""Which arms of a study are compared with which."""

from __future__ import annotations

from dataclasses import dataclass, replace

from optaware.records import StudySpec
from optaware.report._arms import Arm, ArmKey, Collected, Scored

__all__ = ["Pair", "against", "against_first_order", "against_zero_shot", "between"]


@dataclass(frozen=True)
class Pair:
    """Two arms to be compared: their runs seed by seed, and which seeds have no partner, in words."""

    key: ArmKey
    other: str
    arm: tuple[Scored, ...]
    baseline: tuple[Scored, ...]
    note: str


def _pair(arm: Arm, baseline: Arm) -> Pair:
    left = {item.run.spec.seed: item for item in arm.scored}
    right = {item.run.spec.seed: item for item in baseline.scored}
    seeds = sorted(left.keys() & right.keys())
    alone = sorted(set(arm.seeds) - set(seeds))
    missing = ", ".join(map(str, alone))
    note = (f"seed {missing} has no pair" if len(alone) == 1 else f"seeds {missing} have no pair") if alone else ""
    paired = tuple(left[seed] for seed in seeds), tuple(right[seed] for seed in seeds)
    return Pair(arm.key, baseline.key.variant, *paired, note)


def against(arms: dict[ArmKey, Arm], variant: str) -> list[Pair]:
    """Every arm on other rows against the same arm on these."""
    pairs = []
    for key, arm in arms.items():
        baseline = arms.get(ArmKey(key.model, key.task, key.method, variant))
        if key.variant != variant and baseline is not None:
            pairs.append(_pair(arm, baseline))
    return pairs


def between(arms: dict[ArmKey, Arm], baseline: str) -> list[Pair]:
    """Arms on rewritten rows against each other."""
    pairs = []
    listed = list(arms.items())
    for index, (key, arm) in enumerate(listed):
        for other, rival in listed[:index]:
            same = (key.model, key.task, key.method) == (other.model, other.task, other.method)
            if same and baseline not in (key.variant, other.variant):
                pairs.append(_pair(arm, rival))
    return pairs


def against_first_order(study: StudySpec, arms: dict[ArmKey, Arm]) -> list[Pair]:
    """Every forward-only arm on rewritten rows against every first-order arm on the baseline's (OAT-Rephrase, RQ2)."""
    kinds = {arm.display: arm.config for arm in study.methods if arm.config.name != "zero-shot"}
    first_order = [name for name, config in kinds.items() if not config.forward_only]
    pairs = []
    for key, arm in arms.items():
        if key.variant == study.baseline or not kinds[key.method].forward_only:
            continue
        for name in first_order:
            rival = arms.get(ArmKey(key.model, key.task, name, study.baseline))
            if rival is not None:
                pairs.append(replace(_pair(arm, rival), other=f"{name} on {study.baseline}"))
    return pairs


def against_zero_shot(collected: Collected) -> list[Pair]:
    """Every arm against the untrained model."""
    pairs = []
    for arm in collected.arms:
        untrained = collected.zero_shot.get((arm.key.model, arm.key.task))
        if untrained is not None:
            # Nothing is drawn in a zero-shot run, so the one run is every seed's partner.
            pairs.append(Pair(arm.key, "zero-shot", arm.scored, (untrained,) * len(arm.scored), ""))
    return pairs
