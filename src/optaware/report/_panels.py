"""Loss and accuracy curves, one SVG per panel, written directly: a large study has hundreds of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from optaware.report._axis import engineering, nice_ticks
from optaware.report._curves import Band, Curve, CurveGroup, bands
from optaware.report._plots import SERIES, dash_of
from optaware.report._words import percent

__all__ = ["curve_panels"]

_W, _H, _LEFT, _RIGHT, _TOP, _BOTTOM = 270.0, 184.0, 38.0, 6.0, 24.0, 34.0
_FEW = 40
"""Points up to which each is marked."""
_Point = tuple[float, float]
_Place = Callable[[float, float], _Point]
"""From forward passes and value to the drawing's own units."""


def curve_panels(group: CurveGroup) -> list[str]:
    """Training loss, dev loss and dev accuracy against forward passes, each a figure of its own.

    One line per run; where a variant has many seeds, their median and a band from the lowest to the highest, and of a
    diverged run only the end.
    """
    panels = (
        ("Training loss" + (f", mean over {group.window} steps" if group.window > 1 else ""), group.train, 1.0),
        ("Dev loss", group.dev_loss, 1.0),
        ("Dev accuracy, %", group.dev_accuracy, 100.0),
    )
    last = max((curve.x[-1] for _, curves, _ in panels for curve in curves), default=0.0) or 1.0
    return [_panel(group, title, curves, scale, last) for title, curves, scale in panels if curves]


def _panel(group: CurveGroup, title: str, curves: Sequence[Curve], scale: float, last: float) -> str:
    from markupsafe import escape

    banded = bands(curves)
    many = {band.series for band in banded}
    lines = [curve for curve in curves if curve.series not in many]
    ends = [curve for curve in curves if curve.ended]
    bottom, top = _limits(lines, banded, ends)

    def at(x: float, y: float) -> _Point:
        across = _LEFT + 4 + x / last * (_W - _LEFT - _RIGHT - 4)
        return across, _H - _BOTTOM - (min(y, top) - bottom) / (top - bottom) * (_H - _TOP - _BOTTOM)

    parts = [f'<text x="2" y="12" class="st">{escape(title)}</text>', *_axes(bottom, top, last, scale, at)]
    for band in banded:
        edge = [at(*point) for point in zip(band.x, band.high, strict=True)]
        edge += [at(*point) for point in zip(reversed(band.x), reversed(band.low), strict=True)]
        parts.append(f'<path fill="{_colour(band.series)}" fill-opacity=".18" d="{_path(edge)}Z"/>')
    for band in banded:
        parts += _line(band.series, [at(*point) for point in zip(band.x, band.middle, strict=True)])
    for curve in lines:
        parts += _line(curve.series, [at(*point) for point in zip(curve.x, curve.y, strict=True)])
    for curve in ends:
        x, y = at(curve.x[-1], curve.y[-1])
        cross = f"M{x - 3.5:.1f} {y - 3.5:.1f}l7 7m0 -7l-7 7"
        parts.append(f'<path fill="none" stroke="{_colour(curve.series)}" stroke-width="1.8" d="{cross}"/>')
    place = f"{group.method}, {group.model}, {group.task}"
    label = escape(f"{title} against forward passes; {place}. {_ends(group, curves, banded, scale)}")
    return f'<svg viewBox="0 0 {_W:.0f} {_H:.0f}" role="img" aria-label="{label}">{"".join(parts)}</svg>'


def _limits(lines: Sequence[Curve], banded: Sequence[Band], ends: Sequence[Curve]) -> tuple[float, float]:
    """Lowest and highest value shown; a diverged run may leave the plot upwards, so that the
    others can be read."""
    steady = [value for curve in lines if not curve.ended for value in curve.y]
    steady += [value for band in banded for value in (*band.low, *band.high)]
    ended = [value for curve in ends for value in curve.y]
    everything = [*steady, *(value for curve in lines for value in curve.y)] or ended
    low, high = min(everything), max(steady or ended)
    if steady and ended and max(ended) > high:
        high = min(max(ended), high + 0.3 * (high - low))
    room = 0.05 * (high - low) or max(0.02, 0.05 * abs(high))
    return low - room, high + room


def _axes(bottom: float, top: float, last: float, scale: float, at: _Place) -> Iterable[str]:
    for value, shown in nice_ticks(bottom * scale, top * scale):
        y = at(0.0, value / scale)[1]
        yield f'<path class="sg" d="M{_LEFT:.0f} {y:.1f}H{_W - _RIGHT:.0f}"/>'
        yield f'<text x="{_LEFT - 4:.0f}" y="{y + 3:.1f}" class="sl" text-anchor="end">{shown}</text>'
    yield f'<path class="sz" fill="none" d="M{_LEFT:.0f} {_TOP:.0f}V{_H - _BOTTOM:.0f}H{_W - _RIGHT:.0f}"/>'
    for value, _ in nice_ticks(0.0, last):
        x = at(value, bottom)[0]
        anchor = "end" if x > _W - 20 else "middle"
        shown = engineering(value)
        yield f'<text x="{x:.1f}" y="{_H - 20:.0f}" class="sl" text-anchor="{anchor}">{shown}</text>'
    middle = (_LEFT + _W - _RIGHT) / 2
    what = "forward passes (of one batch)"
    yield f'<text x="{middle:.0f}" y="{_H - 5:.0f}" class="sl" text-anchor="middle">{what}</text>'


def _line(series: int, points: Sequence[_Point]) -> Iterable[str]:
    dash = f' stroke-dasharray="{dash_of(series)}"' if dash_of(series) else ""
    colour = _colour(series)
    yield f'<path class="sc" stroke="{colour}"{dash} d="{_path(points)}"/>'
    if len(points) <= _FEW:  # a line without length and with round ends is a dot
        dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in points)
        yield f'<path class="sc" stroke="{colour}" style="stroke-width:4" d="{dots}"/>'


def _path(points: Sequence[_Point]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _colour(series: int) -> str:
    return f"var(--s{series % SERIES})"


def _ends(group: CurveGroup, curves: Sequence[Curve], banded: Sequence[Band], scale: float) -> str:
    def words(value: float) -> str:
        return percent(value) if scale > 1 else f"{value:.3f}"

    many = {band.series: band for band in banded}
    said = []
    for series, name in group.variants:
        if series in many:
            band = many[series]
            spread = f"({words(band.low[-1])} to {words(band.high[-1])} over {band.runs} runs)"
            said.append(f"the median of {name} ends at {words(band.middle[-1])} {spread}")
            continue
        shown = ", ".join(words(curve.y[-1]) for curve in curves if curve.series == series)
        said.append(f"{name} ends at {shown or 'no value'}")
    return "; ".join(said) + "."
