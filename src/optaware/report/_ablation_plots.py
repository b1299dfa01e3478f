from __future__ import annotations

from collections.abc import Sequence

from optaware.report._ablation_runs import AblationRun
from optaware.report._ablation_view import AblationView, ArmView, TableView
from optaware.report._plots import _DASHES, _GRID, _INK, _MARKERS, _MUTED, _PAPER, _UP, _colour, _plain, _style, _svg

__all__ = ["arm_curves", "effects_plot"]


def effects_plot(view: AblationView, salt: str) -> str:
    """All arms' differences with their intervals, the noise floor as a band, as SVG text; empty without any effect."""
    rows = [
        (f"{table.ablation.name}: {arm.arm.label}", arm)
        for table in view.tables
        for arm in table.arms
        if arm.effect is not None and arm.effect.difference is not None
    ]
    if not rows:
        return ""
    shares = view.primary.unit == "points"
    scale = 100.0 if shares else 1.0
    with _style(salt):
        from matplotlib.figure import Figure

        height = 0.5 + 0.46 * len(rows)
        figure = Figure(figsize=(5.6, height))
        axes = figure.add_axes((0.03, 0.44 / height, 0.94, 0.46 * len(rows) / height))
        if view.noise.size is not None:
            axes.axvspan(-view.noise.size * scale, view.noise.size * scale, color=_GRID, alpha=0.55, linewidth=0)
        axes.axvline(0, color=_MUTED, linewidth=1)
        bounds = [0.0]
        for row, (label, arm) in enumerate(rows):
            assert arm.effect is not None
            d = arm.effect.difference
            assert d is not None
            colour, y = {"matters": _UP}.get(arm.verdict or "", _INK), row + 0.12
            axes.plot([d.low * scale, d.high * scale], [y, y], color=colour, linewidth=2.2)
            axes.plot(
                [d.estimate * scale],
                [y],
                marker={"matters": "D", "does not matter": "s"}.get(arm.verdict or "", "o"),
                markersize=6,
                markeredgecolor=colour,
                markeredgewidth=1.5,
                markerfacecolor="none" if arm.verdict == "inconclusive" else colour,
                linestyle="none",
            )
            ground = {"facecolor": _PAPER, "edgecolor": "none", "pad": 1.5, "alpha": 0.85}
            text = label if len(label) <= 76 else label[:75] + "…"
            place = axes.get_yaxis_transform()
            axes.text(0.0, row - 0.25, _plain(text), transform=place, fontsize=9, va="center", bbox=ground)
            bounds += [d.low * scale, d.high * scale]
        margin = 0.06 * (max(bounds) - min(bounds)) or 1.0
        axes.set_xlim(min(bounds) - margin, max(bounds) + margin)
        axes.set_ylim(len(rows) - 0.35, -0.75)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.set_xlabel(f"difference from the baseline in {view.primary.key}" + (", points" if shares else ""))
        words = "; ".join(f"{table.ablation.name}: {table.said}" for table in view.tables)
        return _svg(figure, salt, f"Differences of {len(rows)} arms from the baseline with 95 % intervals. {words}.")


def arm_curves(view: AblationView, table: TableView, salt: str) -> list[str]:
    """Dev accuracy and dev loss of one ablation's arms against forward passes, the mean over seeds with its range."""
    arms = [table.baseline, *table.arms]
    return [
        svg
        for index, (title, name, scale) in enumerate(
            (("Dev accuracy, %", "accuracy", 100.0), ("Dev loss", "loss", 1.0))
        )
        if (svg := _curves(view, table, arms, title, name, scale, f"{salt}-{index}"))
    ]


def _curves(
    view: AblationView, table: TableView, arms: Sequence[ArmView], title: str, name: str, scale: float, salt: str
) -> str:
    lines = [(series, _mean_curve([view.curves[key] for key in arm.run_ids], name)) for series, arm in enumerate(arms)]
    if not any(points for _, points in lines):
        return ""
    start = _start_point(view, name)
    with _style(salt):
        from matplotlib.figure import Figure
        from matplotlib.ticker import EngFormatter, MaxNLocator, ScalarFormatter

        figure = Figure(figsize=(4.4, 2.7))
        axes = figure.add_axes((0.12, 0.16, 0.86, 0.73))
        for series, found in lines:
            if not found:
                continue
            points = [(0.0, start, start, start), *found] if start is not None else found
            x = [point[0] for point in points]
            colour = _colour(series)
            low, high = [point[2] * scale for point in points], [point[3] * scale for point in points]
            axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0)
            axes.plot(
                x,
                [point[1] * scale for point in points],
                color=colour,
                linestyle=_DASHES[series % len(_DASHES)],
                marker=_MARKERS[series % len(_MARKERS)],
                markersize=3,
                linewidth=1.5,
            )
        if name == "loss" and view.target is not None:
            axes.axhline(view.target, color=_MUTED, linewidth=1, linestyle=(0, (2, 2)))
        axes.set_title(title)
        axes.set_xlabel("forward passes (of one batch)")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_locator(MaxNLocator(5))
        axes.yaxis.set_major_formatter(ScalarFormatter(useOffset=False))
        axes.margins(x=0.02)
        axes.grid(axis="y")
        axes.set_axisbelow(True)
        ends = "; ".join(
            f"{arms[series].arm.label} ends at {points[-1][1] * scale:.3g}" for series, points in lines if points
        )
        return _svg(figure, salt, f"{title} against forward passes, {table.ablation.name}. {ends}.")


def _start_point(view: AblationView, name: str) -> float | None:
    points = view.start.curve if view.start is not None and view.start.counts else ()
    value = getattr(points[0], name) if points else None
    return float(value) if value is not None else None


def _mean_curve(runs: Sequence[AblationRun], name: str) -> list[tuple[float, float, float, float]]:
    """Forward passes, mean, lowest and highest value over an arm's runs, at the evaluations that all of them have."""
    curves = []
    for run in runs:
        points = {point.forwards: getattr(point, name) for point in run.curve}
        if run.counts and points:
            curves.append({x: float(y) for x, y in points.items() if y is not None})
    if not curves:
        return []
    shared = sorted(set.intersection(*(set(curve) for curve in curves)))
    return [
        (
            float(x),
            sum(curve[x] for curve in curves) / len(curves),
            min(c[x] for c in curves),
            max(c[x] for c in curves),
        )
        for x in shared
    ]
