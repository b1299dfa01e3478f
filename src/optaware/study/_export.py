"""A study's results as a folder that can be given away."""

from __future__ import annotations

import json
from pathlib import Path

from optaware._io import write_text
from optaware.records import short_id
from optaware.store import Store
from optaware.study._choose import chosen_runs, failed_tries
from optaware.study._graph import StudyGraph
from optaware.study._plan_export import run_row, without_paths

__all__ = ["export_study"]

_FILES = (
    *("report.html", "report.md", "report.tex", "runs.csv", "contrasts.csv", "corpora.csv", "cells.csv", "choices.csv"),
    *("study.json", "choices.json"),
)


def export_study(graph: StudyGraph, store: Store, to: Path) -> list[Path]:
    """Copy a study's report, tables and run records: small files, no weights, no paths of the machine.

    `runs.jsonl` has a line per run with spec, result, evaluations on the dev rows and which test rows it answered
    rightly, from which all statistics of the report can be worked out again.

    Args:
        graph: The study; its report must have been built.
        store: Where its results lie.
        to: The folder; files of the same names are replaced, nothing else in it is touched.

    Raises:
        StorageError: A file cannot be written.
    """
    folder = store.study_folder(graph.study)
    known = [store.root, store.root.resolve(), Path.cwd(), Path.home()]
    known += [Path(model.name) for model in graph.study.models]
    paths = {str(path) for path in known if path.is_absolute() and len(path.parts) > 2}
    written = []
    for name in _FILES:
        if (folder / name).exists():
            write_text(to / name, without_paths((folder / name).read_text("utf-8"), paths))
            written.append(to / name)
    tries = [run for choice in graph.choices for run in choice.tries]
    chosen = chosen_runs(graph.choices, store, failed_tries(folder))
    every = {short_id(run): run for run in [*graph.runs, *tries, *chosen]}
    rows = []
    for key, run in every.items():
        place = store.run_folder(run).path
        rows.append({"run": key, "what": run.slug, **run_row(place if place.is_dir() else None)})
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(to / "runs.jsonl", without_paths(text, paths))
    return [*written, to / "runs.jsonl"]
