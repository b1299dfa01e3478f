from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from optaware.report._arms import Arm
from optaware.report._inputs import ReportRun

__all__ = ["MOST_LINES", "Band", "Curve", "CurveGroup", "bands", "curve_groups"]

_MOST_POINTS = 120
MOST_LINES = 8
"""Runs of one variant up to which each has its own line."""
_WINDOWS = 20
"""The training loss is averaged over this fraction of the run (1/20), as single batches are too noisy to read."""


@dataclass(frozen=True)
class Curve:
    """One run's line in one panel."""

    series: int
    """Which variant: its index in the study, which picks the colour."""
    run_id: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    ended: str = ""


@dataclass(frozen=True)
class Band:
    """Many runs of one variant in one panel, without those that diverged: their median, and the lowest and highest."""

    series: int
    runs: int
    x: tuple[float, ...]
    middle: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


@dataclass(frozen=True)
class CurveGroup:
    """The curves of one model, task and method: every variant and seed."""

    model: str
    task: str
    method: str
    variants: tuple[tuple[int, str], ...]
    """Colour index and name of the variants that have runs."""
    window: int
    train: tuple[Curve, ...]
    dev_loss: tuple[Curve, ...]
    dev_accuracy: tuple[Curve, ...]
    runs: tuple[str, ...]


def curve_groups(arms: Sequence[Arm], variants: Sequence[str]) -> list[CurveGroup]:
    """Read the step and evaluation rows of all runs that trained, one group per model, task and method.

    A variant has the same colour everywhere: its place among `variants`.
    """
    grouped: dict[tuple[str, str, str], list[Arm]] = {}
    for arm in arms:
        grouped.setdefault((arm.key.model, arm.key.task, arm.key.method), []).append(arm)
    groups = [_group(*key, members, list(variants)) for key, members in grouped.items()]
    return [group for group in groups if group.train or group.dev_loss or group.dev_accuracy]


def _group(model: str, task: str, method: str, arms: Sequence[Arm], variants: list[str]) -> CurveGroup:
    train, dev_loss, dev_accuracy, window, drawn = [], [], [], 1, []
    for arm in arms:
        series = variants.index(arm.key.variant)
        runs = sorted([*(item.run for item in arm.scored), *arm.others], key=lambda run: (run.spec.seed, run.run_id))
        for run in runs:
            steps, evals = run.steps(), run.evals()
            if not steps and not evals:
                continue
            drawn.append(run.run_id)
            smoothed, used = _smooth(run, steps, series)
            window = max(window, used)
            train.append(smoothed)
            points = _evaluated(evals, steps)
            dev_loss.append(_evals(run, points, series, 1))
            dev_accuracy.append(_evals(run, points, series, 2))
    return CurveGroup(
        model=model,
        task=task,
        method=method,
        variants=tuple((variants.index(arm.key.variant), arm.key.variant) for arm in arms if arm.scored or arm.others),
        window=window,
        train=tuple(curve for curve in train if curve.x),
        dev_loss=tuple(curve for curve in dev_loss if curve.x),
        dev_accuracy=tuple(curve for curve in dev_accuracy if curve.x),
        runs=tuple(drawn),
    )


def _smooth(run: ReportRun, steps: Sequence[dict[str, Any]], series: int) -> tuple[Curve, int]:
    """Centred running mean of the training loss, thinned; steps without a finite loss are left out of the mean."""
    x, y = _column(steps, "forwards"), _column(steps, "loss")
    window = max(1, len(steps) // _WINDOWS)
    usable = np.isfinite(x) & np.isfinite(y)
    ended = "diverged" if run.state == "diverged" else ""
    if not usable.any():
        return Curve(series, run.run_id, (), (), ended), window
    kernel = np.ones(window)
    total = np.convolve(np.where(usable, y, 0.0), kernel, mode="same")
    count = np.convolve(usable.astype(np.float64), kernel, mode="same")
    picked = np.unique(np.linspace(0, len(steps) - 1, min(_MOST_POINTS, len(steps))).round().astype(int))
    picked = picked[(count[picked] > 0) & np.isfinite(x[picked])]
    means = total[picked] / count[picked]
    # Of a very long file only every k-th row was read: the window spans k times as many steps.
    first = [_float(row.get("step")) for row in steps[:2]]
    apart = first[1] - first[0] if len(first) == 2 else 1.0
    window *= max(1, int(apart)) if math.isfinite(apart) else 1
    return Curve(series, run.run_id, tuple(x[picked].tolist()), tuple(means.tolist()), ended), window


def _evaluated(evals: Sequence[dict[str, Any]], steps: Sequence[dict[str, Any]]) -> list[tuple[float, float, float]]:
    """Forward passes, loss and accuracy of each evaluation; what is unknown is NaN."""
    at: dict[float, float] | None = None
    points = []
    for row in evals:
        step, forwards = _float(row.get("step")), _float(row.get("forwards"))
        if step == 0:
            forwards = 0.0
        elif not forwards > 0:  # written by a version that did not record them: the steps know
            if at is None:
                at = {_float(each.get("step")): _float(each.get("forwards")) for each in steps}
            forwards = at.get(step, math.nan)
        points.append((forwards, _float(row.get("loss")), _float(row.get("accuracy"))))
    return points


def _evals(run: ReportRun, points: Sequence[tuple[float, float, float]], series: int, value: int) -> Curve:
    known = sorted(
        (point[0], point[value]) for point in points if math.isfinite(point[0]) and math.isfinite(point[value])
    )
    ended = "diverged" if run.state == "diverged" else ""
    return Curve(series, run.run_id, tuple(p[0] for p in known), tuple(p[1] for p in known), ended)


def bands(curves: Sequence[Curve]) -> list[Band]:
    """What stands for the runs of a variant that has more of them than lines can be told apart.

    Runs that were evaluated at other places are read off between their points; a place counts where at least half of
    the runs reach. Diverged runs are left out: they end early, and far off.
    """
    found = []
    for series in sorted({curve.series for curve in curves}):
        members = [curve for curve in curves if curve.series == series and not curve.ended]
        if len(members) <= MOST_LINES:
            continue
        x = np.array(max((curve.x for curve in members), key=lambda each: (each[-1], len(each))))
        values = np.array([np.interp(x, curve.x, curve.y, left=math.nan, right=math.nan) for curve in members])
        kept = np.isfinite(values).mean(axis=0) >= 0.5
        x, values = x[kept], values[:, kept]
        low, middle, high = np.nanmin(values, axis=0), np.nanmedian(values, axis=0), np.nanmax(values, axis=0)
        lines = (tuple(each.tolist()) for each in (x, middle, low, high))
        found.append(Band(series, len(members), *lines))
    return found


def _column(rows: Sequence[dict[str, Any]], name: str) -> npt.NDArray[np.float64]:
    """One field of all rows; what is no number is NaN."""
    values = [row.get(name) for row in rows]
    if not {type(value) for value in values} <= {int, float}:
        values = [_float(value) for value in values]
    return np.array(values, dtype=np.float64)


def _float(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
