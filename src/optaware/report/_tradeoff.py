"""Accuracy against what it took: forward passes and seconds of training, an SVG per model and task."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from optaware.report._arms import Arm, Collected
from optaware.report._axis import engineering
from optaware.report._words import duration, percent

__all__ = ["Tradeoff", "tradeoffs"]

_W, _H, _LEFT, _RIGHT, _TOP, _BOTTOM = 300.0, 190.0, 38.0, 10.0, 22.0, 34.0


@dataclass(frozen=True)
class _Point:
    method: int
    series: int
    label: str
    accuracy: float
    forwards: float
    seconds: float


@dataclass(frozen=True)
class Tradeoff:
    """The panels of one model and task, and who is who in them."""

    model: str
    task: str
    methods: tuple[str, ...]
    """By marker."""
    variants: tuple[tuple[int, str], ...]
    """Colour index and name."""
    svgs: tuple[str, ...]


def tradeoffs(collected: Collected, methods: Sequence[str], variants: Sequence[str]) -> list[Tradeoff]:
    """One group of panels per model and task: mean test accuracy of every arm against its forward passes and seconds.

    A backward pass counts as two forward passes. Lines across: the untrained model and the most frequent label.
    """
    made = []
    for model in collected.models:
        for task in collected.tasks:
            arms = [arm for arm in collected.arms if (arm.key.model, arm.key.task) == (model, task) and arm.scored]
            points = [_point(arm, methods, variants) for arm in arms]
            if not points:
                continue
            levels = []
            if (model, task) in collected.zero_shot:
                levels.append(("zero-shot", collected.zero_shot[model, task].accuracy))
            if task in collected.majority:
                levels.append(("most frequent label", collected.majority[task]))
            where = f"{model}, {task}"
            svgs = (
                _panel(points, levels, "forward passes", lambda p: p.forwards, engineering, where),
                _panel(points, levels, "seconds of training", lambda p: p.seconds, duration, where),
            )
            used = sorted({(point.series, variants[point.series]) for point in points})
            made.append(Tradeoff(model, task, tuple(methods), tuple(used), svgs))
    return made


def _point(arm: Arm, methods: Sequence[str], variants: Sequence[str]) -> _Point:
    results = [item.run.result for item in arm.scored if item.run.result is not None]
    count = len(results)
    return _Point(
        method=methods.index(arm.key.method),
        series=variants.index(arm.key.variant),
        label=f"{arm.key.method} on {arm.key.variant}",
        accuracy=sum(item.accuracy for item in arm.scored) / len(arm.scored),
        forwards=sum(result.forwards for result in results) / count,
        seconds=sum(result.train_s for result in results) / count,
    )


def _panel(
    points: Sequence[_Point],
    levels: Sequence[tuple[str, float]],
    what: str,
    x_of: Callable[[_Point], float],
    shown: Callable[[float], str],
    where: str,
) -> str:
    """One scatter plot on a logarithmic x axis."""
    from markupsafe import escape

    xs = [max(x_of(point), 1e-3) for point in points]
    low, high = math.log10(min(xs)), math.log10(max(xs))
    low, high = (low - 0.3, high + 0.3) if high - low < 0.4 else (low - 0.08, high + 0.08)
    values = [point.accuracy for point in points] + [value for _, value in levels]
    bottom, top = max(0.0, min(values) - 0.02), min(1.0, max(values) + 0.02)

    def x(value: float) -> float:
        return _LEFT + (math.log10(max(value, 1e-3)) - low) / (high - low) * (_W - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _H - _BOTTOM - (value - bottom) / (top - bottom) * (_H - _TOP - _BOTTOM)

    parts = [f'<text x="2" y="12" class="st">Test accuracy, %, against {what}</text>']
    for tick in _ticks(bottom, top):
        parts.append(f'<path class="sg" d="M{_LEFT:.0f} {y(tick):.1f}H{_W - _RIGHT:.0f}"/>')
        parts.append(
            f'<text x="{_LEFT - 5:.0f}" y="{y(tick) + 3:.1f}" class="sl" text-anchor="end">{percent(tick, 0)}</text>'
        )
    for value, anchor in ((10**low, "start"), (10 ** ((low + high) / 2), "middle"), (10**high, "end")):
        parts.append(
            f'<text x="{x(value):.1f}" y="{_H - 18:.0f}" class="sl" text-anchor="{anchor}">{shown(value)}</text>'
        )
    parts.append(f'<text x="{_LEFT:.0f}" y="{_H - 4:.0f}" class="sl">{what} (logarithmic)</text>')
    for name, value in levels:
        dash = "6 3" if name == "zero-shot" else "2 3"
        parts.append(f'<path class="sz" stroke-dasharray="{dash}" d="M{_LEFT:.0f} {y(value):.1f}H{_W - _RIGHT:.0f}"/>')
    for point in points:
        parts.append(_mark(x(x_of(point)), y(point.accuracy), point))
    said = "; ".join(f"{p.label}: {percent(p.accuracy)} % at {shown(x_of(p))}" for p in points)
    said += "".join(f"; {name}: {percent(value)} %" for name, value in levels)
    label = escape(f"Test accuracy against {what}, {where}. {said}.")
    return f'<svg viewBox="0 0 {_W:.0f} {_H:.0f}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _ticks(bottom: float, top: float) -> list[float]:
    step = next(each for each in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5) if (top - bottom) / each <= 5)
    return [index * step for index in range(math.ceil(bottom / step), math.floor(top / step) + 1)]


def _mark(x: float, y: float, point: _Point) -> str:
    shape = (
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5"/>',
        f'<rect x="{x - 4:.1f}" y="{y - 4:.1f}" width="8" height="8"/>',
        f'<path d="M{x:.1f} {y - 5:.1f}l5 9h-10z"/>',
        f'<path d="M{x:.1f} {y - 5.5:.1f}l5.5 5.5l-5.5 5.5l-5.5 -5.5z"/>',
        f'<path d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8" fill="none"/>',
    )[point.method % 5]
    from markupsafe import escape

    colour = f"var(--s{point.series % 6})"
    return f'<g class="sp" style="fill:{colour};stroke:{colour}"><title>{escape(point.label)}</title>{shape}</g>'
