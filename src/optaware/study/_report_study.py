"""A study's report, and the comparison of two studies, from what is on disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from optaware._io import canonical_json, file_sha256, read_json, text_sha256, write_json
from optaware.errors import OptawareError
from optaware.records import StudySpec, short_id
from optaware.store import RunFolder, Store
from optaware.study._choose import choose, chosen_runs, failed_tries
from optaware.study._graph import StudyGraph
from optaware.tasks import get_task, load_splits

if TYPE_CHECKING:
    from optaware.report import ComparisonFiles

__all__ = ["compare_studies", "report_study"]


def report_study(
    graph: StudyGraph, store: Store, failures: dict[str, str] | None = None, *, data_dir: Path | None = None
) -> Path:
    """Build the study's report from what is on disk, unless the one there was made from the same records.

    Returns:
        Path of the HTML file.
    """
    folder = store.study_folder(graph.study)
    failed = failed_tries(folder) | frozenset(failures or {})
    wanted = [*graph.runs, *chosen_runs(graph.choices, store, failed)]
    chosen = [choose(choice, store, failed) for choice in graph.choices]
    runs = {short_id(run): store.run_folder(run) for run in wanted}
    corpora = {short_id(spec): store.corpus_folder(spec) for spec in graph.corpora}
    reasons = {**_exclusions(runs, corpora, failures or {}), **dict(graph.left_out)}
    stamp = _stamp(graph.study, runs, corpora, reasons, [each.to_json(store) for each in chosen])
    html = folder / "report.html"
    stamp_file = folder / "report.json"
    if html.exists() and stamp_file.exists() and read_json(stamp_file) == stamp:
        return html
    from optaware.report import build_report, load_report_corpus, load_report_run

    files = build_report(
        graph.study,
        [load_report_run(runs[short_id(run)].path, run) for run in wanted],
        [load_report_corpus(path) for path in corpora.values() if (path / "DONE").exists()],
        folder,
        exclusions=reasons,
        choices=[each.to_json(store) for each in chosen],
        texts=lambda task: _texts(graph, task, data_dir),
    )
    write_json(stamp_file, stamp)
    return files.html


def compare_studies(first: StudyGraph, second: StudyGraph, stores: tuple[Store, Store], out: Path) -> ComparisonFiles:
    """Write a comparison of two studies from what is on disk.

    Args:
        first: The study to compare with.
        second: The study that is compared.
        stores: Where the results of each lie.
        out: Folder to write to.
    """
    from optaware.report import StudyRuns, build_comparison, load_report_run

    def side(graph: StudyGraph, store: Store) -> StudyRuns:
        failed = failed_tries(store.study_folder(graph.study))
        wanted = [*graph.runs, *chosen_runs(graph.choices, store, failed)]
        return StudyRuns(graph.study, [load_report_run(store.run_folder(run).path, run) for run in wanted])

    return build_comparison(side(first, stores[0]), side(second, stores[1]), out)


def _texts(graph: StudyGraph, task_name: str, data_dir: Path | None) -> dict[str, tuple[str, str]]:
    """Prompts and right answers of a task's test rows by id; empty where the rows are not at hand."""
    name = next(
        each for each in graph.study.tasks if Path(each).name.removesuffix(".yaml").removesuffix(".yml") == task_name
    )
    try:
        task = get_task(name)
        rows = load_splits(task, graph.study.protocol, data_dir=data_dir).test
        shown = [task.render(row, style=graph.study.prompt) for row in rows]
    except OptawareError:
        return {}
    return {each.id: (each.prompt, each.options[each.label]) for each in shown}


def _exclusions(runs: dict[str, RunFolder], corpora: dict[str, Path], failures: dict[str, str]) -> dict[str, str]:
    reasons = {}
    for key, path in corpora.items():
        if not (path / "DONE").exists():
            reasons[key] = failures.get(key, "the corpus is not finished")
    for key, folder in runs.items():
        if not folder.is_done:
            status = folder.read_status()
            said = status.detail if status and status.state == "failed" else ""
            reasons[key] = failures.get(key) or said or "not run"
    return reasons


def _stamp(
    study: StudySpec,
    runs: dict[str, RunFolder],
    corpora: dict[str, Path],
    reasons: dict[str, str],
    choices: list[dict[str, Any]],
) -> dict[str, str]:
    from optaware import __version__

    results = {key: file_sha256(run.result) if run.is_done else "" for key, run in runs.items()}
    cards = {key: file_sha256(path / "card.json") if (path / "DONE").exists() else "" for key, path in corpora.items()}
    found = [path / "evidence.json" for path in corpora.values()]
    evidence = {path.parent.name: file_sha256(path) for path in found if path.exists()}
    content = canonical_json([study.to_json(), results, cards, evidence, reasons, choices])
    return {"optaware": __version__, "inputs_sha256": text_sha256(content)}
