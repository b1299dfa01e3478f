from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from optaware._io import canonical_json, text_sha256
from optaware.records import Contrast, Interval, StudySpec
from optaware.report._arms import Arm, ArmKey, Collected, Scored
from optaware.report._pairs import Pair, against, against_first_order, against_zero_shot, between
from optaware.stats import (
    PairedTest,
    Spread,
    benjamini_hochberg,
    crossed_bootstrap,
    crossed_spread,
    crossed_test,
    holm,
    mcnemar,
    paired_bootstrap,
    sign_flip_test,
    wilson,
)

__all__ = [
    "LEVEL",
    "Cell",
    "Comparison",
    "Family",
    "FamilyKey",
    "cell",
    "correctness",
    "families",
    "matched",
    "paired_test",
    "shared_ids",
]

LEVEL = 0.95
FamilyKey = Literal["baseline", "between", "first-order", "zero-shot"]
_ALPHA = 1.0 - LEVEL


@dataclass(frozen=True)
class Cell:
    """Accuracy of one arm: the mean over its seeds, with its interval; None when no run counts."""

    arm: Arm
    accuracy: Interval | None


@dataclass(frozen=True)
class Comparison:
    """One contrast and what may be said of it.

    Interval and p-value rest on one model of variation (further seeds and further test rows, with the same variance
    and degrees of freedom), so they answer alike; the correction covers the other comparisons of the family, which the
    interval does not. `verdict` is `higher` or `lower` only when the interval leaves out zero and the corrected p-value
    is below 0.05. With one paired seed nothing covers other seeds, so the verdict stays `open`; `models_differ` then
    says whether the two trained models differ by more than chance on the test rows.
    """

    contrast: Contrast
    verdict: Literal["higher", "lower", "open"]
    place: str
    """Method, model and task in words; the model only where the study has several."""
    disagreement: float
    """Share of pairs of predictions of which exactly one is right."""
    models_differ: bool = False
    unpaired: str = ""
    """What could not be paired, in words."""
    p_fdr: float | None = None
    """The p-value corrected for the false discovery rate (Benjamini and Hochberg) over the same family."""
    seed_spread: float | None = None
    """Standard deviation of the difference between seeds; None with one seed."""
    spread: Spread | None = None
    """Where the difference varies: seeds, rows, and what is left; None with one seed."""
    p_models: float | None = None
    """What the same difference says of these trained models alone, on further test rows: sign flips over rows."""


@dataclass(frozen=True)
class Family:
    """Comparisons that answer one question and are corrected together."""

    key: FamilyKey
    title: str
    comparisons: tuple[Comparison, ...]
    impossible: tuple[str, ...]
    """Comparisons for which there are no pairs of runs."""


def _generator(*parts: object) -> np.random.Generator:
    """A generator that depends on what is computed, not on the order in which it is."""
    return np.random.default_rng(int(text_sha256(canonical_json([str(part) for part in parts]))[:16], 16))


def cell(arm: Arm) -> Cell:
    """Mean accuracy over an arm's seeds: bootstrap over seeds and rows; Wilson's interval, over rows, when there is one
    seed or every answer is right or wrong, where a bootstrap has no width."""
    if not arm.scored:
        return Cell(arm, None)
    if len(arm.scored) == 1:
        only = arm.scored[0]
        return Cell(arm, wilson(int(only.correct.sum()), len(only.ids), level=LEVEL))
    ids = shared_ids(arm.scored)
    answers = correctness(arm.scored, ids)
    if (answers == answers[0, 0]).all():
        return Cell(arm, wilson(len(ids) * int(answers[0, 0]), len(ids), level=LEVEL))
    interval = crossed_bootstrap(answers, rng=_generator("cell", arm.key), level=LEVEL)
    clipped = {"low": max(0.0, interval.low), "high": min(1.0, interval.high)}
    return Cell(arm, interval.model_copy(update=clipped))


def shared_ids(scored: Sequence[Scored]) -> list[str]:
    """The test rows that all of these runs have, in order."""
    distinct = {id(item.ids): item.ids for item in scored}.values()  # most runs share one tuple
    return sorted(set.intersection(*map(set, distinct)))


def correctness(scored: Sequence[Scored], ids: Sequence[str]) -> npt.NDArray[np.int8]:
    """Correctness [seeds, examples], the columns in the order of `ids`."""
    orders: dict[int, list[int]] = {}
    for item in scored:
        if id(item.ids) not in orders:
            place = {example: index for index, example in enumerate(item.ids)}
            orders[id(item.ids)] = [place[example] for example in ids]
    return np.stack([item.correct[orders[id(item.ids)]] for item in scored])


def matched(
    arm: Sequence[Scored], baseline: Sequence[Scored], seeds: Sequence[int]
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int8], np.random.Generator] | None:
    """Correctness [seeds, rows] of two arms on shared seeds and rows, and a generator that depends on both alone."""
    left = [item for seed in seeds for item in arm if item.run.spec.seed == seed]
    right = [item for seed in seeds for item in baseline if item.run.spec.seed == seed]
    if not left or len(left) != len(right) or not (ids := shared_ids([*left, *right])):
        return None
    rng = _generator("matched", *(item.run.run_id for item in (*left, *right)))
    return correctness(left, ids), correctness(right, ids), rng


def families(study: StudySpec, collected: Collected) -> list[Family]:
    """All comparisons of a study, by question: against the baseline, between rewritings, against zero-shot."""
    arms = {arm.key: arm for arm in collected.arms}
    built = [
        _family("baseline", f"Variants against “{study.baseline}”", against(arms, study.baseline), collected),
        _family("between", "Rewritten variants against each other", between(arms, study.baseline), collected),
        _family(
            "first-order",
            f"Forward-only training against first-order training on “{study.baseline}”",
            against_first_order(study, arms),
            collected,
        ),
        _family("zero-shot", "Trained against zero-shot", against_zero_shot(collected), collected),
    ]
    return [family for family in built if family.comparisons or family.impossible]


def _place(key: ArmKey, collected: Collected) -> str:
    parts = (key.method, key.model, key.task) if len(collected.models) > 1 else (key.method, key.task)
    return ", ".join(parts)


def _family(key: FamilyKey, title: str, pairs: Sequence[Pair], collected: Collected) -> Family:
    usable, impossible = [], []
    for pair in pairs:
        if pair.arm and shared_ids([*pair.arm, *pair.baseline]):
            usable.append(pair)
        else:
            impossible.append(f"{_place(pair.key, collected)}: {pair.key.variant} against {pair.other}")
    contrasts = [_contrast(pair) for pair in usable]
    found = [contrast.p_value if contrast.p_value is not None else 1.0 for contrast in contrasts]
    corrected, discovered = holm(found), benjamini_hochberg(found)
    comparisons = [
        _comparison(contrast.model_copy(update={"p_corrected": value}), pair, _place(pair.key, collected), fdr)
        for contrast, value, fdr, pair in zip(contrasts, corrected, discovered, usable, strict=True)
    ]
    return Family(key, title, tuple(comparisons), tuple(impossible))


def _contrast(pair: Pair) -> Contrast:
    ids = shared_ids([*pair.arm, *pair.baseline])
    arm, baseline = correctness(pair.arm, ids), correctness(pair.baseline, ids)
    rng = _generator("contrast", pair.key, pair.other)
    test = paired_test(arm, baseline)
    return Contrast(
        arm=pair.key.variant,
        baseline=pair.other,
        model=pair.key.model,
        task=pair.key.task,
        method=pair.key.method,
        seeds=tuple(item.run.spec.seed for item in pair.arm),
        n_examples=len(ids),
        difference=paired_bootstrap(arm, baseline, rng=rng, level=LEVEL),
        p_value=test.p_value,
        p_method=test.method,
        run_ids=tuple(dict.fromkeys(item.run.run_id for item in (*pair.arm, *pair.baseline))),
    )


def paired_test(arm: npt.NDArray[np.int8], baseline: npt.NDArray[np.int8]) -> PairedTest:
    """The test that belongs beside `paired_bootstrap`'s interval: over seeds and rows; over rows with one seed."""
    return mcnemar(arm, baseline) if len(arm) == 1 else crossed_test(arm, baseline)


def _comparison(contrast: Contrast, pair: Pair, place: str, fdr: float) -> Comparison:
    difference, p = contrast.difference, contrast.p_corrected
    verdict: Literal["higher", "lower", "open"] = "open"
    clear = p is not None and p < _ALPHA and (difference.low > 0 or difference.high < 0)
    if clear and len(contrast.seeds) > 1:
        verdict = "higher" if difference.low > 0 else "lower"
    most = max(len(item.ids) for item in (*pair.arm, *pair.baseline))
    shared = f"{contrast.n_examples} of {most} test rows are shared" if contrast.n_examples < most else ""
    ids = shared_ids([*pair.arm, *pair.baseline])
    arm, baseline = correctness(pair.arm, ids), correctness(pair.baseline, ids)
    difference_of = arm - baseline
    rows_only = sign_flip_test(arm, baseline, rng=_generator("models", pair.key, pair.other)).p_value
    several = min(difference_of.shape) > 1
    over_seeds = float(difference_of.mean(axis=1).std(ddof=1)) if len(difference_of) > 1 else None
    spread = crossed_spread(arm, baseline) if several else None
    unpaired = "; ".join(part for part in (pair.note, shared) if part)
    disagreement = float((difference_of != 0).mean())
    return Comparison(contrast, verdict, place, disagreement, clear, unpaired, fdr, over_seeds, spread, rows_only)
