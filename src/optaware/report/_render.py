from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from typing import Any

from optaware.report._curves import MOST_LINES, CurveGroup
from optaware.report._plots import SERIES, dash_of
from optaware.report._tradeoff import Tradeoff
from optaware.report._view import View, run_task
from optaware.report._words import duration, energy, memory, number, p_value, percent, points, reason_words, rough, span

__all__ = ["Plots", "render_html", "render_markdown"]


@dataclass(frozen=True)
class Plots:
    """SVG text of the plots, in the order in which they are shown."""

    forests: dict[str, str]
    """By family key."""
    curves: tuple[tuple[CurveGroup, tuple[str, ...]], ...]
    tradeoffs: tuple[Tradeoff, ...] = ()


_MANY_SEEDS = 10
"""Seeds up to which a cell of the accuracy table shows each at once."""
_MANY_CLAIMS = 8
"""Comparisons without a claim up to which the answer lists them at once."""
_FILTERS = {
    "percent": percent,
    "points": points,
    "span": span,
    "p": p_value,
    "energy": energy,
    "rough": rough,
    "number": number,
    "memory": memory,
    "duration": duration,
    "run_task": run_task,
    "reason": reason_words,
    "dash": dash_of,
    "colour": lambda series: f"var(--s{series % SERIES})",
}


def _template_text(name: str) -> str:
    return files("optaware.report").joinpath("templates", name).read_text("utf-8")


def render_html(view: View, plots: Plots, links: Sequence[str]) -> str:
    """The page: escaped throughout, with a policy that forbids every request and every script but its own."""
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    script = _template_text("filter.js")
    environment = Environment(
        loader=PackageLoader("optaware.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(_FILTERS)
    # These five are written by this package (plots escape the user's text themselves), so they go in as they are.
    safe: dict[str, Any] = {
        "style": Markup(_template_text("style.css")),  # noqa: S704
        "script": Markup(script),  # noqa: S704
        "forests": {key: Markup(svg) for key, svg in plots.forests.items()},  # noqa: S704
        "tradeoffs": [(each, [Markup(svg) for svg in each.svgs]) for each in plots.tradeoffs],  # noqa: S704
        "curves": [(group, [Markup(svg) for svg in svgs]) for group, svgs in plots.curves],  # noqa: S704
    }
    digest = b64encode(sha256(script.encode()).digest()).decode()
    sizes = {"most_lines": MOST_LINES, "many_seeds": _MANY_SEEDS, "many_claims": _MANY_CLAIMS}
    page = environment.get_template("report.html.jinja").render(
        v=view, script_sha256=digest, links=links, **sizes, **safe
    )
    return _tidy(page)


def render_markdown(view: View, links: Sequence[str]) -> str:
    """The same content as Markdown, without plots; whatever is printed is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("optaware.report", "templates"),
        autoescape=False,  # noqa: S701 - not HTML: `finalize` escapes for Markdown instead
        finalize=markdown_escape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(_FILTERS)
    return _tidy(environment.get_template("report.md.jinja").render(v=view, links=links))


def markdown_escape(value: Any) -> Any:
    """One line of Markdown that shows the value literally: no markup, no HTML, no table or heading of its own."""
    if not isinstance(value, str) or hasattr(value, "__html__"):
        return value  # numbers, and the output of the template's own macros
    line = " ".join(value.split())
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#$!])", r"\\\1", line)


def _tidy(text: str) -> str:
    """No trailing spaces, no runs of empty lines; one newline at the end."""
    text = re.sub(r"[ \t]+\n", "\n", text)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"
