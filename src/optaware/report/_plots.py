from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from optaware.report._analysis import Comparison
from optaware.report._words import points, span

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["SERIES", "dash_of", "forest"]

SERIES = 6
"""Colours in the style sheet (`--s0` … `--s5`); further variants reuse them with other dashes."""

# Colours that stand for style-sheet variables: matplotlib wants a colour, the page wants one that follows the theme.
_INK, _MUTED, _GRID, _PAPER, _UP, _DOWN = (f"#00000{digit}" for digit in "abcdef")
_VARIABLES = {_INK: "--ink", _MUTED: "--muted", _GRID: "--line", _PAPER: "--paper", _UP: "--up", _DOWN: "--down"} | {
    f"#0000f{i}": f"--s{i}" for i in range(SERIES)
}
_DASHES: tuple[Any, ...] = ("solid", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
_SVG_DASHES = ("", "7 3", "2 2", "8 3 2 3")
_MARKERS = "osD^vP"


def dash_of(series: int) -> str:
    """The `stroke-dasharray` of a series, for legends."""
    return _SVG_DASHES[series % len(_SVG_DASHES)]


def _colour(series: int) -> str:
    return f"#0000f{series % SERIES}"


@contextmanager
def _style(salt: str) -> Iterator[None]:
    import matplotlib

    settings = {
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": 9,
        "text.color": _INK,
        "axes.edgecolor": _MUTED,
        "axes.labelcolor": _INK,
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.color": _MUTED,
        "ytick.color": _MUTED,
        "xtick.labelcolor": _INK,
        "ytick.labelcolor": _INK,
        "grid.color": _GRID,
        "grid.linewidth": 0.6,
        "axes.formatter.use_mathtext": False,
        "axes.unicode_minus": True,
    }
    with matplotlib.rc_context(settings):
        yield


def forest(comparisons: Sequence[Comparison], salt: str) -> str:
    """Differences with their intervals, one row each, as SVG text. Filled: a claim; hollow: open."""
    with _style(salt):
        from matplotlib.figure import Figure

        rows = len(comparisons)
        figure = Figure(figsize=(5.2, 0.5 + 0.46 * rows))
        axes = figure.add_axes((0.03, 0.44 / (0.5 + 0.46 * rows), 0.94, 0.46 * rows / (0.5 + 0.46 * rows)))
        axes.axvline(0, color=_MUTED, linewidth=1)
        for row, item in enumerate(comparisons):
            _forest_row(axes, row, item)
        low = min(0.0, *(item.contrast.difference.low for item in comparisons)) * 100
        high = max(0.0, *(item.contrast.difference.high for item in comparisons)) * 100
        margin = max(0.5, 0.06 * (high - low))
        axes.set_xlim(low - margin, high + margin)
        axes.set_ylim(rows - 0.35, -0.75)
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.set_xlabel("difference in accuracy, points")
        text = "; ".join(_in_words(item) for item in comparisons)
        return _svg(figure, salt, f"Forest plot of {rows} differences with 95 % intervals. {text}.")


def _forest_row(axes: Axes, row: int, item: Comparison) -> None:
    contrast, difference = item.contrast, item.contrast.difference
    colour = {"higher": _UP, "lower": _DOWN, "open": _INK}[item.verdict]
    y = row + 0.12
    axes.plot([difference.low * 100, difference.high * 100], [y, y], color=colour, linewidth=2.2)
    axes.plot(
        [difference.estimate * 100],
        [y],
        marker="o" if item.verdict == "open" else "^" if item.verdict == "higher" else "v",
        markersize=6.5,
        markeredgecolor=colour,
        markeredgewidth=1.5,
        markerfacecolor="none" if item.verdict == "open" else colour,
        linestyle="none",
    )
    label = f"{contrast.arm} − {contrast.baseline}, {item.place}"
    label = label if len(label) <= 78 else label[:77] + "…"
    # The label's own ground keeps grid lines out of the letters.
    ground = {"facecolor": _PAPER, "edgecolor": "none", "pad": 1.5}
    axes.text(
        0.0, row - 0.25, _plain(label), transform=axes.get_yaxis_transform(), fontsize=9, va="center", bbox=ground
    )


def _in_words(item: Comparison) -> str:
    contrast, d = item.contrast, item.contrast.difference
    return f"{contrast.arm} minus {contrast.baseline}, {item.place}: {points(d.estimate)} ({span(d.low, d.high)})"


def _plain(text: str) -> str:
    """Keep matplotlib from reading dollar signs as mathematics."""
    return text.replace("$", r"\$")


def _svg(figure: Figure, salt: str, description: str) -> str:
    """The figure as an inline `<svg>`: theme colours, unique ids, no metadata, an accessible name."""
    from markupsafe import escape

    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    text = re.sub(r'\bid="([^"]+)"', rf'id="{salt}-\1"', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{salt}-", text)
    text = re.sub(r'\b(?:d|x|y|transform|width|height)="[^"]*"', _rounded, text)
    text = re.sub(r"font(?:-family)?: [^;\"]*'DejaVu Sans'[^;\"]*", _font_size, text)
    view = re.search(r'viewBox="[^"]+"', text)
    attributes = f'{view.group() if view else ""} role="img" aria-label="{escape(description)}"'
    return f"<svg {attributes}>{text[text.index('>') + 1 :].strip()}"


def _rounded(attribute: re.Match[str]) -> str:
    """Coordinates to a hundredth of a point: half the size, and the same bytes where the last digits differ."""
    return re.sub(r"-?\d+\.\d{3,}", lambda number: f"{float(number.group()):.2f}", attribute.group())


def _font_size(style: re.Match[str]) -> str:
    size = re.search(r"([\d.]+px)", style.group())
    weight = "font-weight: bold; " if "bold" in style.group() or "700" in style.group() else ""
    return f"{weight}font-size: {size.group(1)}" if size else "font-style: normal"
