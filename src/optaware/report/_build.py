from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optaware._io import write_text
from optaware.records import StudySpec, short_id
from optaware.report._arms import collect
from optaware.report._curves import curve_groups
from optaware.report._flips import Texts
from optaware.report._inputs import ReportCorpus, ReportRun

__all__ = ["ReportFiles", "build_report"]


@dataclass(frozen=True)
class ReportFiles:
    """What was written: `report.html`, `report.md`, `report.tex`, and the tables as CSV: `runs`, `contrasts`,
    `corpora`, `cells` (the accuracies in the paper's layout, long) and `choices`."""

    html: Path
    markdown: Path
    csv: tuple[Path, ...]
    latex: Path


def build_report(
    study: StudySpec,
    runs: Sequence[ReportRun],
    corpora: Sequence[ReportCorpus],
    out: Path,
    *,
    exclusions: Mapping[str, str] | None = None,
    choices: Sequence[Mapping[str, Any]] = (),
    texts: Texts | None = None,
) -> ReportFiles:
    """Write a study's report: one self-contained page, the same in Markdown, and CSV tables.

    A run counts when it is done and its predictions agree with its result; all others are listed with the reason.
    Two arms are compared on the seeds that both have. The same records give the same bytes.

    Args:
        study: What was asked for; it gives the order of everything.
        runs: All runs of the study in any state. Those whose method is `zero-shot` are the untrained models.
        corpora: Its finished corpora.
        out: Folder to write to.
        exclusions: Reasons by run or corpus id, for what could not be run.
        choices: How grid points were chosen, as the study wrote it down.
        texts: Task → its test rows' prompts and right answers by id, for rows that flip; None: ids only.

    Returns:
        The paths written.

    Raises:
        StorageError: A file cannot be written.
        InputError: A step or evaluation file is malformed.
    """
    from optaware.report._latex import render_latex
    from optaware.report._panels import curve_panels
    from optaware.report._plots import forest
    from optaware.report._render import Plots, render_html, render_markdown
    from optaware.report._tables import write_tables
    from optaware.report._tradeoff import tradeoffs
    from optaware.report._view import make_view

    collected = collect(study, runs, exclusions or {})
    view = make_view(study, short_id(study), collected, corpora, choices=choices, texts=texts)
    groups = curve_groups(collected.arms, [variant.name for variant in study.variants])
    plots = Plots(
        forests={
            family.key: forest(family.comparisons, f"f-{family.key}") for family in view.families if family.comparisons
        },
        curves=tuple((group, tuple(curve_panels(group))) for group in groups),
        tradeoffs=tuple(
            tradeoffs(
                collected,
                [arm.display for arm in study.methods if arm.config.name != "zero-shot"],
                [variant.name for variant in study.variants],
            )
        ),
    )
    tables = write_tables(view, out)
    markdown, html, latex = out / "report.md", out / "report.html", out / "report.tex"
    write_text(latex, render_latex(view))
    links = [*(path.name for path in tables), latex.name]
    write_text(markdown, render_markdown(view, links))
    write_text(html, render_html(view, plots, links))
    return ReportFiles(html, markdown, tables, latex)
