from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from optaware.report._arms import Arm
from optaware.report._inputs import ReportRun

__all__ = ["Curve", "CurveGroup", "curve_groups"]

_MOST_POINTS = 120
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
            at = {_float(row.get("step")): _float(row.get("forwards")) for row in steps}
            smoothed, used = _smooth(run, steps, series)
            window = max(window, used)
            train.append(smoothed)
            dev_loss.append(_evals(run, evals, series, "loss", at))
            dev_accuracy.append(_evals(run, evals, series, "accuracy", at))
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
    rows = [(_float(row.get("forwards")), _float(row.get("loss"))) for row in steps]
    window = max(1, len(rows) // _WINDOWS)
    x = np.array([row[0] for row in rows], dtype=np.float64)
    y = np.array([row[1] for row in rows], dtype=np.float64)
    usable = np.isfinite(x) & np.isfinite(y)
    ended = "diverged" if run.state == "diverged" else ""
    if not usable.any():
        return Curve(series, run.run_id, (), (), ended), window
    kernel = np.ones(window)
    total = np.convolve(np.where(usable, y, 0.0), kernel, mode="same")
    count = np.convolve(usable.astype(np.float64), kernel, mode="same")
    picked = np.unique(np.linspace(0, len(rows) - 1, min(_MOST_POINTS, len(rows))).round().astype(int))
    picked = picked[(count[picked] > 0) & np.isfinite(x[picked])]
    means = total[picked] / count[picked]
    # Of a very long file only every k-th row was read: the window spans k times as many steps.
    first = [_float(row.get("step")) for row in steps[:2]]
    apart = first[1] - first[0] if len(first) == 2 else 1.0
    window *= max(1, int(apart)) if math.isfinite(apart) else 1
    return Curve(series, run.run_id, tuple(map(float, x[picked])), tuple(map(float, means)), ended), window


def _evals(run: ReportRun, evals: Sequence[dict[str, Any]], series: int, name: str, at: dict[float, float]) -> Curve:
    points = []
    for row in evals:
        step, forwards, value = _float(row.get("step")), _float(row.get("forwards")), _float(row.get(name))
        if step == 0:
            forwards = 0.0
        elif not forwards > 0:
            forwards = at.get(step, math.nan)
        if math.isfinite(forwards) and math.isfinite(value):
            points.append((forwards, value))
    points.sort()
    ended = "diverged" if run.state == "diverged" else ""
    return Curve(series, run.run_id, tuple(p[0] for p in points), tuple(p[1] for p in points), ended)


def _float(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
