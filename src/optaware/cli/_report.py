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


@app.command
def compare(
    first: Path,
    second: Path,
    /,
    *,
    out: Annotated[Path, Parameter(("--out", "-o"), help="Folder to write to.")],
    scale: Annotated[str | None, Parameter(help="Scale of both studies.")] = None,
    second_scale: Annotated[str | None, Parameter(help="Scale of the second study, if another.")] = None,
    store: StoreDir = None,
    second_store: Annotated[Path | None, Parameter(help="Results of the second study, if elsewhere.")] = None,
    data: DataDir = None,
) -> int:
    """Compare two studies: the arms that both have, paired where seeds and rows are shared; HTML, Markdown, CSV.

    Parameters
    ----------
    first
        Study file (YAML) to compare with.
    second
        Study file that is compared; differences are second minus first.
    """
    from optaware.study import compare_studies, load_study, plan_study

    folder, place = data_dir(data), store_at(store)
    other = store_at(second_store) if second_store is not None else place
    graphs = [
        plan_study(load_study(path, chosen), data_dir=folder)
        for path, chosen in ((first, scale), (second, second_scale or scale))
    ]
    files = compare_studies(graphs[0], graphs[1], (place, other), out)
    print(f"Comparison: {files.html}")
    return 0
