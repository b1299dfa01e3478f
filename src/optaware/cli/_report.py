from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from optaware.cli._options import DataDir, StoreDir, data_dir, store_at

__all__ = ["app"]

app = App(name="report", help="Reports of studies.")


@app.command
def build(
    study: Path | None = None,
    /,
    *,
    scale: Annotated[str | None, Parameter(help="smoke, small or paper: one of the study's scales.")] = None,
    store: StoreDir = None,
    data: DataDir = None,
) -> int:
    """Build the report of a study from what is on disk, finished or not: HTML, Markdown, LaTeX tables and CSV.

    Parameters
    ----------
    study
        Study file (YAML); without one, the quickstart.
    """
    from optaware.study import load_study, plan_study, report_study

    folder = data_dir(data)
    graph = plan_study(load_study(study, scale), data_dir=folder)
    html = report_study(graph, store_at(store), data_dir=folder)
    print(f"Report: {html}")
    return 0
