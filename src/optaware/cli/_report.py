from __future__ import annotations

from pathlib import Path

from cyclopts import App

from optaware.cli._options import DataDir, StoreDir, data_dir, store_at

__all__ = ["app"]

app = App(name="report", help="Reports of studies.")


@app.command
def build(study: Path | None = None, /, *, store: StoreDir = None, data: DataDir = None) -> int:
    """Build the report of a study from what is on disk, finished or not: HTML, Markdown and CSV.

    Parameters
    ----------
    study
        Study file (YAML); without one, the quickstart.
    """
    from optaware.study import load_study, plan_study, report_study

    graph = plan_study(load_study(study), data_dir=data_dir(data))
    html = report_study(graph, store_at(store))
    print(f"Report: {html}")
    return 0
