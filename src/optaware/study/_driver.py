from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from optaware._io import canonical_json, file_sha256, lock, read_json, text_sha256, write_json
from optaware.errors import StorageError
from optaware.execute import Event, Executor, Job, Outcome
from optaware.records import CorpusSpec, RunSpec, StudySpec, short_id
from optaware.store import RunFolder, Store
from optaware.study._graph import StudyGraph

__all__ = ["StudyOutcome", "run_study"]


@dataclass
class StudyOutcome:
    """How a study ended.

    Attributes:
        report: The report's HTML file; None when the study was stopped before one could be made.
        failures: Jobs that failed, by id.
        stopped: Whether it was stopped and goes on with the same command.
    """

    report: Path | None = None
    failures: dict[str, str] = field(default_factory=dict)
    stopped: bool = False


@dataclass(frozen=True)
class _Driver:
    graph: StudyGraph
    store: Store
    executor: Executor
    data_dir: Path | None
    on_event: Callable[[Event], None]
    on_done: Callable[[str, RunSpec | CorpusSpec], None]

    def jobs(self, specs: Sequence[RunSpec | CorpusSpec]) -> list[Job]:
        return [self._job(spec) for spec in specs if not self._is_done(spec)]

    def _is_done(self, spec: RunSpec | CorpusSpec) -> bool:
        return (self._folder(spec) / "DONE").exists()

    def _folder(self, spec: RunSpec | CorpusSpec) -> Path:
        return self.store.run_folder(spec).path if isinstance(spec, RunSpec) else self.store.corpus_folder(spec)

    def _job(self, spec: RunSpec | CorpusSpec) -> Job:
        folder = self._folder(spec)
        path = folder / "spec.json"
        if not path.exists():
            write_json(path, spec.to_json())
        study = self.graph.study
        training = isinstance(spec, RunSpec)
        command = ("train",) if training else ("data", "rewrite")
        data = ("--data-dir", str(self.data_dir)) if self.data_dir else ()
        return Job(
            key=short_id(spec),
            title=spec.slug,
            arguments=(*command, str(path), "--store", str(self.store.root), "--quiet", *data),
            log=folder / "log.txt",
            threads=spec.threads if isinstance(spec, RunSpec) else study.threads * study.workers,
            progress=(lambda: run_progress(folder, spec)) if isinstance(spec, RunSpec) else lambda: _rows(folder),
        )

    def run(self, specs: Sequence[RunSpec | CorpusSpec]) -> list[Outcome]:
        by_key = {short_id(spec): spec for spec in specs}

        def relay(event: Event) -> None:
            self.on_event(event)
            if event.outcome is not None and event.outcome.state == "done":
                self.on_done(event.job.key, by_key[event.job.key])

        return self.executor.run(self.jobs(specs), relay)


def run_study(
    graph: StudyGraph,
    store: Store,
    executor: Executor,
    *,
    data_dir: Path | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    on_done: Callable[[str, RunSpec | CorpusSpec], None] = lambda key, spec: None,
) -> StudyOutcome:
    """Do what is left of a study, then build its report.

    Runs on the original rows go first, so that a first result is there early; then the corpora; then the other runs.
    A job that fails does not stop the others; runs whose corpus failed are left out and said to be.

    Raises:
        StorageError: Another driver works on the same study.
    """
    folder = store.study_folder(graph.study)
    outcome = StudyOutcome()
    with lock(folder / ".lock", wait=False) as mine:
        if not mine:
            raise StorageError.of(
                "study-busy", graph.study.name, "another process runs it", "Wait for it or stop it.", str(folder)
            )
        _write_index(graph, folder)
        driver = _Driver(graph, store, executor, data_dir, on_event, on_done)
        failed_corpora: set[str | None] = set()
        phases: list[Sequence[RunSpec | CorpusSpec]] = [
            [run for run in graph.runs if run.corpus_id is None],
            graph.corpora,
            [run for run in graph.runs if run.corpus_id is not None],
        ]
        for specs in phases:
            left = [spec for spec in specs if not (isinstance(spec, RunSpec) and spec.corpus_id in failed_corpora)]
            for ended in driver.run(left):
                if ended.state == "failed":
                    outcome.failures[ended.key] = ended.detail
                    failed_corpora.add(ended.key)
                outcome.stopped = outcome.stopped or ended.state == "stopped"
            if outcome.stopped:
                return outcome
        outcome.report = report_study(graph, store, outcome.failures)
    return outcome


def report_study(graph: StudyGraph, store: Store, failures: dict[str, str] | None = None) -> Path:
    """Build the study's report from what is on disk, unless the one there was made from the same records.

    Returns:
        Path of the HTML file.
    """
    folder = store.study_folder(graph.study)
    runs = {short_id(run): store.run_folder(run) for run in graph.runs}
    corpora = {short_id(spec): store.corpus_folder(spec) for spec in graph.corpora}
    reasons = _exclusions(runs, corpora, failures or {})
    stamp = _stamp(graph.study, runs, corpora, reasons)
    html = folder / "report.html"
    stamp_file = folder / "report.json"
    if html.exists() and stamp_file.exists() and read_json(stamp_file) == stamp:
        return html
    from optaware.report import build_report, load_report_corpus, load_report_run

    files = build_report(
        graph.study,
        [load_report_run(store.run_folder(run).path, run) for run in graph.runs],
        [load_report_corpus(path) for path in corpora.values() if (path / "DONE").exists()],
        folder,
        exclusions=reasons,
    )
    write_json(stamp_file, stamp)
    return files.html


def _write_index(graph: StudyGraph, folder: Path) -> None:
    index = {
        "runs": {short_id(run): run.slug for run in graph.runs},
        "corpora": {short_id(spec): spec.slug for spec in graph.corpora},
    }
    write_json(folder / "study.json", graph.study.to_json())
    write_json(folder / "index.json", index)


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
    study: StudySpec, runs: dict[str, RunFolder], corpora: dict[str, Path], reasons: dict[str, str]
) -> dict[str, str]:
    from optaware import __version__

    results = {key: file_sha256(run.result) if run.is_done else "" for key, run in runs.items()}
    cards = {key: file_sha256(path / "card.json") if (path / "DONE").exists() else "" for key, path in corpora.items()}
    content = canonical_json([study.to_json(), results, cards, reasons])
    return {"optaware": __version__, "inputs_sha256": text_sha256(content)}


def _count_lines(path: Path) -> int:
    if not path.exists():
        return 0
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def run_progress(folder: Path, spec: RunSpec) -> tuple[int, int, str] | None:
    return _count_lines(folder / "steps.jsonl"), max(1, spec.schedule.steps), ""


def _rows(folder: Path) -> tuple[int, int, str] | None:
    path = folder / "progress.json"
    if not path.exists():
        return None
    progress = read_json(path)
    return int(progress["done"]), int(progress["total"]), str(progress.get("part", ""))
