"""The tables as LaTeX (booktabs), to be put into a paper with `\\input`."""

from __future__ import annotations

import re

from optaware.report._paper import Average, PaperCell, PaperTable
from optaware.report._view import View
from optaware.report._words import percent, points

__all__ = ["latex_escape", "render_latex"]

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "−": r"$-$",
    "“": "``",
    "”": "''",
}
_MARKS = {"higher": r"$^{\blacktriangle}$", "lower": r"$^{\blacktriangledown}$"}


def latex_escape(text: str) -> str:
    """Text that LaTeX prints as it is, on one line."""
    line = " ".join(text.split())
    return re.sub(r"[\\&%$#_{}~^−“”]", lambda found: _SPECIAL[found.group()], line)


def render_latex(view: View) -> str:
    """Table 1 (when something was rewritten), a Table 2 per model, and the paired differences, in booktabs style."""
    parts = [
        "% Tables of the study " + latex_escape(view.study.name) + ", written by optaware. Needs: booktabs, amssymb.",
        "% Triangles: a difference from the baseline's data that interval and corrected p-value both support.",
    ]
    if view.rewriters and any(corpus for row in view.rewriters for _, corpus in row.cells):
        parts.append(_rewriters(view))
    parts += [_accuracies(view, table) for table in view.paper if table.rows]
    parts += [_differences(view)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _tabular(columns: str, caption: str, label: str, lines: list[str]) -> str:
    return "\n".join(
        [
            r"\begin{table}[t]",
            r"\centering\small",
            rf"\caption{{{caption}}}",
            rf"\label{{tab:{label}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            *lines,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
    )


def _label(*words: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", "-".join(words).lower()).strip("-")


def _rewriters(view: View) -> str:
    tasks = view.collected.tasks
    lines = [" & ".join(["Rewriter accuracy, \\%", *(latex_escape(task) for task in tasks)]) + r" \\", r"\midrule"]
    for row in view.rewriters:
        cells = [
            percent(corpus.accuracy.estimate) if corpus is not None and corpus.accuracy is not None else "--"
            for _, corpus in row.cells
        ]
        lines.append(" & ".join([latex_escape(row.variant), *cells]) + r" \\")
    caption = "Share of training rows whose rewrite passed the checks and the judge."
    return _tabular("l" + "r" * len(tasks), caption, _label(view.study.name, "rewriter"), lines)


def _accuracies(view: View, table: PaperTable) -> str:
    head = ["Data", "Method", *(latex_escape(task) for task in table.tasks), "Avg.", r"Avg. $\Delta$"]
    lines = [" & ".join(head) + r" \\"]
    for row in table.rows:
        if row.first:
            lines.append(r"\midrule")
        cells = [latex_escape(row.variant), latex_escape(row.method) if row.first else ""]
        cells += [_cell(each) for each in row.cells]
        cells += [percent(row.average.interval.estimate, 2) if row.average else "--", _average(row.difference)]
        lines.append(" & ".join(cells) + r" \\")
    lines.append(r"\midrule")
    if any(table.zero_shot):
        shown = [percent(c.accuracy.estimate) if c and c.accuracy else "--" for c in table.zero_shot]
        lines.append(" & ".join(["--", "zero-shot", *shown, "", ""]) + r" \\")
    shown = ["--" if value is None else percent(value) for value in table.majority]
    lines.append(" & ".join(["--", "most frequent label", *shown, "", ""]) + r" \\")
    seeds = len(view.study.seeds)
    caption = (
        f"Test accuracy of {latex_escape(table.model)} (\\%, mean of {seeds} {'seed' if seeds == 1 else 'seeds'}, "
        "95\\,\\% interval in brackets)."
    )
    return _tabular("ll" + "r" * len(table.tasks) + "rr", caption, _label(view.study.name, table.model), lines)


def _cell(each: PaperCell) -> str:
    if each.cell is None or each.cell.accuracy is None:
        return "--"
    value = each.cell.accuracy
    shown = percent(value.estimate)
    shown = rf"\textbf{{{shown}}}" if each.best else shown
    return rf"{shown}{_MARKS.get(each.mark, '')} {{\scriptsize[{percent(value.low)}, {percent(value.high)}]}}"


def _average(found: Average | None) -> str:
    if found is None:
        return ""
    value = found.interval
    shown = points(value.estimate).replace("−", "$-$")
    low, high = (points(bound).replace("−", "$-$") for bound in (value.low, value.high))
    return rf"{shown} {{\scriptsize[{low}, {high}]}}"


def _differences(view: View) -> str:
    main = next((family for family in view.families if family.key == "baseline" and family.comparisons), None)
    if main is None:
        return ""
    lines = [r"Comparison & Points & 95\,\% interval & $p$ & Holm & BH \\", r"\midrule"]
    for item in main.comparisons:
        contrast, difference = item.contrast, item.contrast.difference
        cells = [latex_escape(f"{contrast.arm} − {contrast.baseline}, {item.place}")]
        cells += [points(difference.estimate), f"{points(difference.low)} to {points(difference.high)}"]
        cells += [_p(p) for p in (contrast.p_value, contrast.p_corrected, item.p_fdr)]
        lines.append(" & ".join([cells[0], *(cell.replace("−", "$-$") for cell in cells[1:])]) + r" \\")
    caption = "Paired differences in accuracy from the baseline's data, on the same seeds and test rows."
    return _tabular("lrrrrr", caption, _label(view.study.name, "differences"), lines)


def _p(value: float | None) -> str:
    return "--" if value is None else "$<$0.001" if value < 0.001 else f"{value:.3f}"
