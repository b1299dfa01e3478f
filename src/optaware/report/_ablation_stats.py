from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from optaware._io import canonical_json, text_sha256
from optaware.records import Interval
from optaware.report._ablation_runs import AblationRun
from optaware.stats import crossed_test, holm, mcnemar, mean_interval, paired_bootstrap

__all__ = ["LEVEL", "Effect", "NoiseFloor", "Verdict", "correct_together", "effect", "noise_floor", "paired", "verdict"]

LEVEL = 0.95
Verdict = Literal["matters", "does not matter", "inconclusive", "no result"]


@dataclass(frozen=True)
class Effect:
    """An arm's difference from the baseline in the primary metric, over seeds (and test rows) that both have.

    Attributes:
        difference: Arm minus baseline with its interval; None when nothing could be paired.
        p_value: Two-sided; None when it cannot be told.
        p_method: How it was got.
        p_corrected: Holm over all arms of the plan.
        seeds: The paired seeds.
        note: What the reader must know about it.
    """

    difference: Interval | None
    p_value: float | None
    p_method: str
    seeds: tuple[int, ...]
    p_corrected: float | None = None
    note: str = ""


@dataclass(frozen=True)
class NoiseFloor:
    """How far two means over the same number of seeds differ when nothing was changed.

    Attributes:
        size: `t(95 %, S − 1)·s·√(2/n)`, s over all S runs of the baseline, n seeds per arm; None with fewer than two.
        spread: s.
        runs: S.
        between: Mean of the further seeds minus mean of the first ones: the same comparison as an arm's, of nothing.
        repeated: Result of the baseline's first seed, minus that of the same run again; None when it was not run.
    """

    size: float | None
    spread: float | None
    runs: int
    between: float | None
    repeated: float | None


def effect(arm: Sequence[AblationRun], baseline: Sequence[AblationRun], metric: str) -> Effect:
    """Compare an arm with the baseline on the seeds that both have.

    Where the runs keep every test row (accuracy): bootstrap over seeds and rows for the interval; McNemar's test for
    one seed, for several the t test with the interval's two-way variance. Where only a total per seed is known:
    Student's t on the paired differences.

    Args:
        arm: The arm's runs.
        baseline: The baseline's.
        metric: Name of the primary metric.
    """
    pairs = _pairs(arm, baseline, metric)
    seeds = tuple(left.seed for left, _ in pairs)
    if not pairs:
        return Effect(None, None, "", (), note="no pair of finished runs with the same seed")
    if metric == "accuracy" and (rows := _shared_rows(pairs)):
        left = np.array([[run.correct[row] for row in rows] for run, _ in pairs if run.correct is not None])
        right = np.array([[run.correct[row] for row in rows] for _, run in pairs if run.correct is not None])
        rng = _generator(*seeds, *(run.run_id for pair in pairs for run in pair))
        difference = paired_bootstrap(left, right, rng=rng, level=LEVEL)
        test = mcnemar(left, right) if len(pairs) == 1 else crossed_test(left, right)
        note = "one seed: nothing is said about others" if len(pairs) == 1 else ""
        return Effect(difference, test.p_value, test.method, seeds, note=note)
    differences = [float(a.values[metric] or 0.0) - float(b.values[metric] or 0.0) for a, b in pairs]
    if len(differences) < 2:
        return Effect(None, None, "", seeds, note="one seed: no interval")
    if len(set(differences)) == 1 and len({b.values[metric] for _, b in pairs}) == 1:
        note = "all seeds give the same numbers: does the seed reach the run?"
        return Effect(mean_interval(differences, level=LEVEL), None, "", seeds, note=note)
    return Effect(
        mean_interval(differences, level=LEVEL), paired_t(differences), f"paired t over {len(seeds)} seeds", seeds
    )


def paired_t(differences: Sequence[float]) -> float:
    """Two-sided p-value of Student's t test that the mean difference is zero, `t = d̄·√n/s` with n − 1 degrees."""
    from scipy.special import stdtr

    values = np.asarray(differences, dtype=np.float64)
    spread = float(values.std(ddof=1))
    if spread == 0.0:
        return 1.0 if not values.any() else 0.0
    t = abs(float(values.mean())) * math.sqrt(values.size) / spread
    return float(2 * stdtr(values.size - 1, -t))


def paired(arm: Sequence[AblationRun], baseline: Sequence[AblationRun], metric: str) -> Interval | None:
    """Student's t interval of a metric's difference over paired seeds; None with fewer than two pairs."""
    pairs = _pairs(arm, baseline, metric)
    if len(pairs) < 2:
        return None
    return mean_interval([float(a.values[metric] or 0) - float(b.values[metric] or 0) for a, b in pairs], level=LEVEL)


def correct_together(effects: Sequence[Effect]) -> list[Effect]:
    """Holm's correction over all arms of a plan; effects without a p-value stay without one."""
    known = [item.p_value for item in effects if item.p_value is not None]
    corrected = iter(holm(known))
    return [item if item.p_value is None else replace(item, p_corrected=next(corrected)) for item in effects]


def noise_floor(
    baseline: Sequence[AblationRun], further: Sequence[AblationRun], again: AblationRun | None, metric: str
) -> NoiseFloor:
    """Measure the noise floor from the baseline alone.

    Args:
        baseline: The baseline's runs that arms are compared with.
        further: The baseline with other seeds.
        again: Its first seed, run a second time.
        metric: Name of the primary metric.
    """
    from scipy.special import stdtrit

    first, other = _values(baseline, metric), _values(further, metric)
    everything = [*first, *other]
    spread = size = None
    if len(everything) >= 2:
        spread = float(np.std(everything, ddof=1))
        t = float(stdtrit(len(everything) - 1, 0.5 + LEVEL / 2))
        size = t * spread * math.sqrt(2 / max(1, len(first)))
    same = [run for run in baseline if again is not None and run.seed == again.seed]
    told = again.values.get(metric) if again is not None and again.counts else None
    before = same[0].values.get(metric) if same else None
    return NoiseFloor(
        size=size,
        spread=spread,
        runs=len(everything),
        between=float(np.mean(other) - np.mean(first)) if first and other else None,
        repeated=before - told if before is not None and told is not None else None,
    )


def verdict(item: Effect, floor: NoiseFloor, smallest: float | None) -> Verdict:
    """What may be said of an arm.

    - `does not matter`: the whole 95 % interval lies within ± the smallest effect of interest (an equivalence test at
      2.5 % on each side, stricter than the usual 5 %), with at least two seeds.
    - `matters`: the interval leaves out zero, the corrected p-value is below 0.05, the difference is larger than the
      noise floor, and there are at least two seeds.
    - `no result`: nothing could be paired.
    - `inconclusive`: everything else.
    """
    d = item.difference
    if not item.seeds:
        return "no result"
    if d is None or len(item.seeds) < 2:
        return "inconclusive"
    if smallest is not None and item.p_value is not None and -smallest < d.low and d.high < smallest:
        return "does not matter"
    clear = item.p_corrected is not None and item.p_corrected < 1 - LEVEL and (d.low > 0 or d.high < 0)
    above = floor.size is None or abs(d.estimate) > floor.size
    return "matters" if clear and above else "inconclusive"


def _pairs(
    arm: Sequence[AblationRun], baseline: Sequence[AblationRun], metric: str
) -> list[tuple[AblationRun, AblationRun]]:
    right = {run.seed: run for run in baseline if run.counts and run.values.get(metric) is not None}
    left = [run for run in arm if run.counts and run.values.get(metric) is not None]
    return [(run, right[run.seed]) for run in sorted(left, key=lambda run: run.seed) if run.seed in right]


def _shared_rows(pairs: Sequence[tuple[AblationRun, AblationRun]]) -> list[str]:
    rows = [set(run.correct) for pair in pairs for run in pair if run.correct is not None]
    return sorted(set.intersection(*rows)) if len(rows) == 2 * len(pairs) else []


def _values(runs: Sequence[AblationRun], metric: str) -> list[float]:
    return [float(value) for run in runs if run.counts and (value := run.values.get(metric)) is not None]


def _generator(*parts: object) -> np.random.Generator:
    """A generator that depends on what is computed, not on the order in which it is."""
    return np.random.default_rng(int(text_sha256(canonical_json([str(part) for part in parts]))[:16], 16))
