from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from optaware.records.plan_run import AblationArm, PlannedAblation, PlannedRuns
from optaware.report._ablation_metrics import Measure, measure, measures_of
from optaware.report._ablation_runs import AblationRun, target_loss, to_target
from optaware.report._ablation_stats import (
    Effect,
    NoiseFloor,
    Verdict,
    correct_together,
    effect,
    noise_floor,
    paired,
    verdict,
)
from optaware.report._words import short_reason

__all__ = ["AblationView", "ArmView", "Column", "TableView", "make_ablation_view"]


@dataclass(frozen=True)
class Column:
    """One quantity of an arm: mean over its runs, the values, and how far it is from the baseline."""

    measure: Measure
    mean: float | None
    values: tuple[tuple[str, float], ...]
    """Run id and value, by seed."""
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    ratio: float | None = None
    reached: str = ""


@dataclass(frozen=True)
class ArmView:
    """One row of an ablation's table."""

    arm: AblationArm
    columns: tuple[Column, ...]
    effect: Effect | None
    verdict: Verdict | None
    spread: float | None
    diverged: tuple[int, int]
    failed: tuple[tuple[str, str], ...]
    memory_reduction: float | None
    primary: float | None
    """Mean of the primary metric over the seeds."""

    @property
    def run_ids(self) -> tuple[str, ...]:
        """Ids of its runs, by seed."""
        return tuple(self.arm.runs.values())


@dataclass(frozen=True)
class TableView:
    """One ablation: its arms, what may be said, and what is not there."""

    index: int
    ablation: PlannedAblation
    measures: tuple[Measure, ...]
    baseline: ArmView
    arms: tuple[ArmView, ...]
    verdict: Verdict
    said: str
    unmeasured: tuple[str, ...]

    @property
    def shows_memory(self) -> bool:
        """Whether the plan asks about memory here, and it was measured."""
        return any(item.key == "peak memory" for item in self.measures)


@dataclass(frozen=True)
class AblationView:
    """All that the report shows."""

    planned: PlannedRuns
    primary: Measure
    tables: tuple[TableView, ...]
    noise: NoiseFloor
    target: float | None
    start: AblationRun | None
    baseline: ArmView
    headline: str
    limits: tuple[str, ...]
    runs: tuple[tuple[str, AblationRun], ...]
    """Arm in words and run, in the order of the plan; the baseline's first."""
    facts: tuple[tuple[str, str], ...]
    curves: Mapping[str, AblationRun]

    @property
    def by_row(self) -> bool:
        """Whether the primary metric is known for every test row."""
        return self.primary.key == "accuracy" and any(run.correct is not None for _, run in self.runs)

    @property
    def from_start(self) -> bool:
        """Whether the untrained model's dev loss is known."""
        return _start_loss(self.start) is not None

    @property
    def finished(self) -> int:
        """Runs that have a result."""
        return sum(run.counts for _, run in self.runs)


_ALWAYS = ("forward passes", "wall time")
_ORDER = (
    "accuracy",
    "F1",
    "loss",
    "steps to target",
    "forwards to target",
    "GPU-hours",
    "wall time",
    "peak memory",
    "training speed",
    "forward passes",
)


def make_ablation_view(
    planned: PlannedRuns, runs: Mapping[str, AblationRun], again: AblationRun | None, failures: Mapping[str, str]
) -> AblationView:
    """Work out everything that the report says; it computes nothing itself.

    Args:
        planned: Arms and run ids.
        runs: Runs by id.
        again: The baseline's first seed, run a second time.
        failures: Reasons by run id, for runs that left none on disk.
    """
    known = {key: _with_reason(run, failures) for key, run in runs.items()}
    start = known.get(planned.zero_shot) if planned.zero_shot else None
    base = _runs_of(planned.baseline, known)
    target = target_loss(_start_loss(start), base, planned.spec.target_share)
    known = {key: _with_target(run, target) for key, run in known.items()}
    base = _runs_of(planned.baseline, known)
    further = _runs_of(planned.noise, known) if planned.noise else []
    spec = planned.spec
    primary = measure(spec.primary, planned.units, planned.better)
    floor = noise_floor(base, further, again, spec.primary)
    drafts = [
        (entry, arm, effect(_runs_of(arm, known), base, spec.primary))
        for entry in planned.ablations
        for arm in entry.arms
        if not arm.is_baseline
    ]
    effects = {
        (entry.name, arm.key): item
        for (entry, arm, _), item in zip(drafts, correct_together([item for *_, item in drafts]), strict=True)
    }
    tables = tuple(
        _table(index, entry, planned, known, base, effects, floor) for index, entry in enumerate(planned.ablations, 1)
    )
    columns = _measures(planned, None, base)
    listed = _listed(planned, known)
    return AblationView(
        planned=planned,
        primary=primary,
        tables=tables,
        noise=floor,
        target=target,
        start=start,
        baseline=_arm(planned.baseline, columns, known, base, None, floor, planned),
        headline=_headline(tables, listed),
        limits=_limits(planned, tables, listed, floor),
        runs=listed,
        facts=_facts(listed),
        curves=known,
    )


def _with_reason(run: AblationRun, failures: Mapping[str, str]) -> AblationRun:
    reason = failures.get(run.run_id)
    return replace(run, state="failed", detail=reason) if reason and not run.counts else run


def _start_loss(start: AblationRun | None) -> float | None:
    if start is None or not start.counts:
        return None
    losses = [point.loss for point in start.curve if point.loss is not None]
    return losses[0] if losses else None


def _with_target(run: AblationRun, target: float | None) -> AblationRun:
    point = to_target(run, target)
    told = {"steps to target": None, "forwards to target": None}
    if point is not None:
        told = {"steps to target": float(point.step), "forwards to target": float(point.forwards)}  # type: ignore[dict-item]
    return replace(run, values={**run.values, **told})


def _runs_of(arm: AblationArm, runs: Mapping[str, AblationRun]) -> list[AblationRun]:
    """An arm's runs; one that other arms share is taken with this arm's seed."""
    return [replace(runs[key], seed=seed) for seed, key in arm.runs.items() if key in runs]


def _measures(planned: PlannedRuns, entry: PlannedAblation | None, base: Sequence[AblationRun]) -> tuple[Measure, ...]:
    asked = [metric.name for metric in entry.metrics if metric.name] if entry else []
    if entry is None:
        asked = [name for other in planned.ablations for metric in other.metrics if (name := metric.name)]
    keys = list(dict.fromkeys([planned.spec.primary, *(key for name in asked for key in measures_of(name)), *_ALWAYS]))
    there = [key for key in keys if any(run.values.get(key) is not None for run in base) or key.endswith("to target")]
    if not any(run.curve for run in base):
        there = [key for key in there if not key.endswith("to target")]
    first = [planned.spec.primary] if planned.spec.primary in there else []
    there = first + sorted(
        (key for key in there if key != planned.spec.primary),
        key=lambda key: _ORDER.index(key) if key in _ORDER else len(_ORDER),
    )
    return tuple(measure(key, planned.units, planned.better) for key in there)


def _table(
    index: int,
    entry: PlannedAblation,
    planned: PlannedRuns,
    known: Mapping[str, AblationRun],
    base: Sequence[AblationRun],
    effects: Mapping[tuple[str, str], Effect],
    floor: NoiseFloor,
) -> TableView:
    columns = _measures(planned, entry, base)
    baseline = _arm(planned.baseline, columns, known, base, None, floor, planned)
    own = [arm for arm in entry.arms if arm.is_baseline]
    if own:
        label = f"{own[0].label} (baseline)"
        baseline = replace(baseline, arm=planned.baseline.model_copy(update={"label": label}))
    arms = tuple(
        _arm(arm, columns, known, base, effects.get((entry.name, arm.key)), floor, planned)
        for arm in entry.arms
        if not arm.is_baseline
    )
    verdicts = [arm.verdict for arm in arms]
    overall: Verdict = "inconclusive"
    if "matters" in verdicts:
        overall = "matters"
    elif verdicts and set(verdicts) == {"does not matter"} and not entry.left_out:
        overall = "does not matter"
    elif set(verdicts) <= {"no result"}:
        overall = "no result"
    there = {column.key for column in columns}
    unmeasured = tuple(
        metric.text
        for metric in entry.metrics
        if metric.name not in ("stability",) and (metric.name is None or not set(measures_of(metric.name)) & there)
    )
    return TableView(index, entry, columns, baseline, arms, overall, _said(arms, overall, planned), unmeasured)


def _arm(
    arm: AblationArm,
    columns: Sequence[Measure],
    known: Mapping[str, AblationRun],
    base: Sequence[AblationRun],
    item: Effect | None,
    floor: NoiseFloor,
    planned: PlannedRuns,
) -> ArmView:
    runs = _runs_of(arm, known)
    counted = [run for run in runs if run.counts]
    main = [value for run in counted if (value := run.values.get(planned.spec.primary)) is not None]
    memories = [_mean(group, "peak memory") for group in (counted, base)]
    reduction = 1 - memories[0] / memories[1] if memories[0] is not None and memories[1] else None
    smallest = planned.spec.smallest_effect
    return ArmView(
        arm=arm,
        columns=tuple(_column(column, runs, base, own=item is None) for column in columns),
        effect=item,
        verdict=verdict(item, floor, smallest) if item else None,
        spread=float(np.std(main, ddof=1)) if len(main) > 1 else None,
        diverged=(sum(run.state == "diverged" for run in runs), len(counted)),
        failed=tuple((run.run_id, short_reason(run.detail) or run.state) for run in runs if not run.counts),
        memory_reduction=reduction,
        primary=sum(main) / len(main) if main else None,
    )


def _mean(runs: Sequence[AblationRun], key: str) -> float | None:
    values = [float(value) for run in runs if run.counts and (value := run.values.get(key)) is not None]
    return sum(values) / len(values) if values else None


def _column(column: Measure, runs: Sequence[AblationRun], base: Sequence[AblationRun], *, own: bool) -> Column:
    counted = [run for run in runs if run.counts]
    values = tuple((run.run_id, float(v)) for run in counted if (v := run.values.get(column.key)) is not None)
    mean, reference = _mean(counted, column.key), _mean(base, column.key)
    reached = ""
    if column.key.endswith("to target"):
        reached = f"{len(values)} of {len(counted)} runs"
        if len(values) < len(counted) or any(run.values.get(column.key) is None for run in base if run.counts):
            return Column(column, mean, values, reached=reached)  # a mean over those that got there is no comparison
    if own or mean is None or reference is None:
        return Column(column, mean, values, reached=reached)
    interval = paired(runs, base, column.key)
    return Column(
        column,
        mean,
        values,
        difference=mean - reference,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        ratio=mean / reference if reference else None,
        reached=reached,
    )


def _said(arms: Sequence[ArmView], overall: Verdict, planned: PlannedRuns) -> str:
    if not arms:
        return "nothing of it could be run"
    shown = measure(planned.spec.primary, planned.units, planned.better)
    parts = []
    for arm in arms:
        d = arm.effect.difference if arm.effect else None
        if d is None:
            found = next((c.difference for c in arm.columns if c.measure.key == shown.key), None)
            note = (arm.effect.note if arm.effect else "") or "no paired result"
            parts.append(f"{arm.arm.label}: " + (note if found is None else f"{shown.show_difference(found)} ({note})"))
            continue
        text = f"{arm.arm.label}: {shown.show_difference(d.estimate)}{' ' + shown.unit if shown.unit else ''}"
        text += f" ({shown.show_difference(d.low)} to {shown.show_difference(d.high)})"
        parts.append(f"{text}, {arm.verdict}" if len(arms) > 1 else text)
    return "; ".join(parts)


def _headline(tables: Sequence[TableView], runs: Sequence[tuple[str, AblationRun]]) -> str:
    groups: dict[str, list[str]] = {"matters": [], "does not matter": [], "inconclusive": [], "no result": []}
    for table in tables:
        groups[table.verdict].append(table.ablation.name)
    parts = []
    if groups["matters"]:
        parts.append(f"Matters: {', '.join(groups['matters'])}.")
    if groups["does not matter"]:
        parts.append(f"Does not matter: {', '.join(groups['does not matter'])}.")
    if groups["inconclusive"]:
        parts.append(f"Inconclusive at this size: {', '.join(groups['inconclusive'])}.")
    if groups["no result"]:
        parts.append(f"No result yet: {', '.join(groups['no result'])}.")
    left = sum(not run.counts for _, run in runs)
    if left:
        parts.append(f"{left} of {len(runs)} runs have no result.")
    return " ".join(parts)


def _limits(
    planned: PlannedRuns, tables: Sequence[TableView], runs: Sequence[tuple[str, AblationRun]], floor: NoiseFloor
) -> tuple[str, ...]:
    spec = planned.spec
    said = [
        f"One baseline, {len(spec.seeds)} paired seeds, one data set: other models, tasks and sizes may differ.",
        "One factor at a time: what two changes do together is not seen.",
    ]
    together = [table for table in tables for arm in table.arms if sum(c.why != "ablated" for c in arm.arm.changes) > 0]
    if together:
        names = ", ".join(dict.fromkeys(table.ablation.name for table in together))
        said.append(f"In {names} some arms change several values at once (their own scale); the tables list them.")
    if spec.smallest_effect is None:
        said.append("No smallest effect of interest is stated, so nothing can be said not to matter.")
    if floor.size is not None and spec.smallest_effect is not None and floor.size > spec.smallest_effect:
        said.append("The noise floor is larger than the smallest effect of interest: more seeds are needed to see it.")
    if spec.workers > 1:
        said.append(
            f"Up to {spec.workers} runs shared the machine, so times and speeds compare arms only roughly, and "
            "GPU-hours count each run's own time."
        )
    if any(table.ablation.left_out for table in tables):
        said.append("Some of the plan could not be run; see each ablation.")
    if any(run.state == "failed" for _, run in runs):
        said.append("Failed runs are left out of all numbers; the same command runs them again.")
    return tuple(said)


def _listed(planned: PlannedRuns, known: Mapping[str, AblationRun]) -> tuple[tuple[str, AblationRun], ...]:
    named: dict[str, str] = {}
    arms: list[tuple[str, AblationArm]] = [("baseline", planned.baseline)]
    if planned.noise:
        arms.append(("baseline, other seeds", planned.noise))
    for entry in planned.ablations:
        arms += [(f"{entry.name}: {arm.label}", arm) for arm in entry.arms if not arm.is_baseline]
    for name, arm in arms:
        for key in arm.runs.values():
            named.setdefault(key, name)
    if planned.zero_shot:
        named.setdefault(planned.zero_shot, "untrained model")
    return tuple((name, known[key]) for key, name in named.items() if key in known)


def _facts(runs: Sequence[tuple[str, AblationRun]]) -> tuple[tuple[str, str], ...]:
    environments: list[Mapping[str, Any]] = [run.environment for _, run in runs if run.environment]
    if not environments:
        return ()
    env = environments[0]
    devices = sorted({run.device for _, run in runs if run.device})
    packages = ", ".join(f"{name} {version}" for name, version in (env.get("packages") or {}).items() if version)
    facts = {
        "optaware": f"{env.get('optaware')} ({env.get('commit') or 'no commit'})",
        "Python": env.get("python"),
        "platform": env.get("platform"),
        "processor": f"{env.get('cpu')}, {env.get('cores')} cores",
        "device": ", ".join(devices),
        "packages": packages,
    }
    return tuple((name, str(value)) for name, value in facts.items() if value)
