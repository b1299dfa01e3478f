from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optaware.report._ablation_plots import arm_curves, effects_plot
from optaware.report._ablation_view import AblationView
from optaware.report._plots import SERIES, dash_of
from optaware.report._render import _template_text, _tidy, markdown_escape
from optaware.report._words import number, p_value, percent, short_reason

__all__ = ["render_ablation_html", "render_ablation_markdown"]

_FILTERS = {
    "p": p_value,
    "number": number,
    "percent": percent,
    "reason": short_reason,
    "dash": dash_of,
    "colour": lambda series: f"var(--s{series % SERIES})",
}


def _environment(**options: Any) -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(  # noqa: S701 - each caller says how it escapes
        loader=PackageLoader("optaware.report", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
    environment.filters.update(_FILTERS)
    return environment


def render_ablation_html(view: AblationView, links: Sequence[str]) -> str:
    """The page: escaped throughout, with a policy that forbids every request and every script."""
    from markupsafe import Markup

    # Written by this package; the plots escape what is the user's.
    style = Markup(_template_text("style.css"))  # noqa: S704
    effects = Markup(effects_plot(view, "fx"))  # noqa: S704
    curves = {
        table.index: [Markup(svg) for svg in arm_curves(view, table, f"c{table.index}")]  # noqa: S704
        for table in view.tables
    }
    page = _environment(autoescape=True).get_template("ablation.html.jinja")
    return _tidy(page.render(v=view, style=style, effects=effects, curves=curves, links=links))


def render_ablation_markdown(view: AblationView) -> str:
    """The same content as Markdown, without plots; whatever is printed is escaped."""
    template = _environment(autoescape=False, finalize=markdown_escape).get_template("ablation.md.jinja")
    return _tidy(template.render(v=view))
