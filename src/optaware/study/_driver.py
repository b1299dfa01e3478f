from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optaware._io import canonical_json, lock, read_json, remove_half_files, write_json
from optaware.errors import StorageError
from optaware.execute import Event, Executor, Job, Outcome
from optaware.records import CorpusSpec, RunSpec, short_id
from optaware.store import Store, check_version
from optaware.study._choose import Choice, choose, due_runs, failed_before, note_pruned
from optaware.study._graph import StudyGraph
from optaware.study._report_study import report_study

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
    undecided: dict[str, str] = field(default_factory=dict)
    """Grids from which no point could be chosen, with the reason."""
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
    timeout_s: float | None = None
    points: Mapping[str, str] = field(default_factory=dict)
    """Points of grids by the ids of the runs that try them."""

    def jobs(self, specs: Sequence[RunSpec | CorpusSpec], until: Mapping[str, int]) -> list[Job]:
        return [self._job(spec, until.get(short_id(spec))) for spec in specs if not self._is_done(spec)]

    def _is_done(self, spec: RunSpec | CorpusSpec) -> bool:
        if isinstance(spec, RunSpec):
            return self.store.run_folder(spec).is_done
        return (self._folder(spec) / "DONE").exists()

    def _folder(self, spec: RunSpec | CorpusSpec) -> Path:
        return self.store.run_folder(spec).path if isinstance(spec, RunSpec) else self.store.corpus_folder(spec)

    def _job(self, spec: RunSpec | CorpusSpec, until: int | None) -> Job:
        folder = self._folder(spec)
        path = folder / "spec.json"

        def prepare() -> None:
            if not path.exists():
                write_json(path, spec.to_json())

        study = self.graph.study
        training = isinstance(spec, RunSpec)
        command = ("train",) if training else ("data", "rewrite")
        data = ("--data-dir", str(self.data_dir)) if self.data_dir else ()
        stop = () if until is None else ("--until-step", str(until))
        return Job(
            key=short_id(spec),
            title=self._title(spec, until),
            arguments=(*command, str(path), "--store", str(self.store.root), "--quiet", *data, *stop),
            log=folder / "log.txt",
            threads=spec.threads if isinstance(spec, RunSpec) else study.threads * study.workers,
            timeout_s=self.timeout_s if training else None,
            prepare=prepare,
            progress=(lambda: run_progress(folder, spec)) if isinstance(spec, RunSpec) else lambda: _rows(folder),
        )

    def _title(self, spec: RunSpec | CorpusSpec, until: int | None) -> str:
        """The slug; runs of a grid differ in their settings alone, so their point is named too."""
        point = self.points.get(short_id(spec))
        added = [f"({point})"] if point is not None else []
        return " ".join([spec.slug, *added, *([f"to step {until}"] if until is not None else [])])

    def run(self, specs: Sequence[RunSpec | CorpusSpec], until: Mapping[str, int]) -> list[Outcome]:
        by_key = {short_id(spec): spec for spec in specs}

        def relay(event: Event) -> None:
            self.on_event(event)
            if event.outcome is not None and event.outcome.state == "done" and self._is_done(by_key[event.job.key]):
                self.on_done(event.job.key, by_key[event.job.key])

        return self.executor.run(self.jobs(specs, until), relay)


def run_study(
    graph: StudyGraph,
    store: Store,
    executor: Executor,
    *,
    data_dir: Path | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
    on_done: Callable[[str, RunSpec | CorpusSpec], None] = lambda key, spec: None,
    timeout_s: float | None = None,
    report: bool = True,
    corpora_only: bool = False,
) -> StudyOutcome:
    """Do what is left of a study, then build its report (unless told not to).

    With `corpora_only` the rewritten corpora are made and nothing else: their folders can be copied to the store of a
    machine that trains and has no rewriter (a corpus's id does not depend on the machine, nor on the models trained).

    Runs on the original rows go first, so that a first result is there early; then the corpora; then the other runs.
    Where an arm has a grid, the runs that choose among its points come first, then those that use the chosen one. With
    `selection.prune` they go from rung to rung; the decisions are worked out anew from what is on disk, so that a study
    that was stopped comes to the same ones.
    A job that fails does not stop the others; runs whose corpus failed are left out and said to be.

    Raises:
        StorageError: Another driver works on the same study.
    """
    check_version(store.root)
    folder = store.study_folder(graph.study)
    outcome = StudyOutcome()
    with lock(folder / ".lock", wait=False) as mine:
        if not mine:
            raise StorageError.of(
                "study-busy", graph.study.name, "another process runs it", "Wait for it or stop it.", str(folder)
            )
        remove_half_files(folder)
        _write_index(graph, folder)
        points = {
            short_id(run): each.words for choice in graph.choices for each in choice.options for run in each.tries
        }
        driver = _Driver(graph, store, executor, data_dir, on_event, on_done, timeout_s, points)
        if corpora_only:
            _do(driver, graph.corpora, outcome)
            return outcome
        for rewritten in (False, True):
            if rewritten and not _do(driver, graph.corpora, outcome):
                return outcome
            runs = [run for run in graph.runs if (run.corpus_id is not None) == rewritten]
            grids = [choice for choice in graph.choices if (choice.corpus_id is not None) == rewritten]
            if not _try_out(driver, runs, grids, outcome):
                return outcome
            if grids and not _do(driver, _decide(grids, store, folder, outcome), outcome):
                return outcome
        if report:
            outcome.report = report_study(graph, store, outcome.failures, data_dir=data_dir)
    return outcome


def _try_out(driver: _Driver, runs: Sequence[RunSpec], grids: Sequence[Choice], outcome: StudyOutcome) -> bool:
    """Do the runs, and those that grids are chosen by: to their end, or from rung to rung where points are stopped."""
    racing = [choice for choice in grids if choice.prune is not None]
    specs = [*runs, *(run for choice in grids if choice.prune is None for run in choice.tries)]
    due = failed_before(racing, driver.store)
    before: dict[RunSpec, int | None] = {}
    while True:
        if not due:
            note_pruned(racing, driver.store, driver.graph.study.name, frozenset(outcome.failures))
        due = due or due_runs(racing, driver.store, frozenset(outcome.failures))
        due = {run: step for run, step in due.items() if run.corpus_id not in outcome.failures}
        if not specs and not due:
            return True
        if due and due == before:
            outcome.failures |= {short_id(run): f"it ended before step {step}, twice" for run, step in due.items()}
            continue
        before = due
        until = {short_id(run): step for run, step in due.items() if step is not None}
        if not _do(driver, [*specs, *due], outcome, until):
            return False
        specs, due = [], {}


def _do(
    driver: _Driver,
    specs: Sequence[RunSpec | CorpusSpec],
    outcome: StudyOutcome,
    until: Mapping[str, int] | None = None,
) -> bool:
    """Do what is left of these; False when a stop was asked for. Runs whose corpus failed are left out."""
    left = [spec for spec in specs if not (isinstance(spec, RunSpec) and spec.corpus_id in outcome.failures)]
    for ended in driver.run(left, until or {}):
        if ended.state == "failed":
            outcome.failures[ended.key] = ended.detail
        outcome.stopped = outcome.stopped or ended.state == "stopped"
    return not outcome.stopped


def _decide(grids: Sequence[Choice], store: Store, folder: Path, outcome: StudyOutcome) -> list[RunSpec]:
    """Choose, write down how, and return the runs that follow."""
    failed = frozenset(outcome.failures)
    chosen = [choose(choice, store, failed) for choice in grids]
    path = folder / "choices.json"
    earlier = read_json(path) if path.exists() else []
    made = [each.to_json(store) for each in chosen]
    places = [_place(each) for each in made]
    write_json(path, [*(each for each in earlier if _place(each) not in places), *made])
    for each in chosen:
        if each.option is None:
            what = f"{each.choice.method} on {each.choice.variant}, {each.choice.model.name}, {each.choice.task}"
            outcome.undecided[what] = "every point of the grid failed, diverged or is missing"
    runs = [run for each in chosen if each.option is not None for run in each.option.finals]
    return list({short_id(run): run for run in runs}.values())


def _place(choice: Any) -> tuple[Any, ...]:
    return (canonical_json(choice["model"]), choice["task"], choice["method"], choice["variant"], choice["seed"])


def _write_index(graph: StudyGraph, folder: Path) -> None:
    possible = [run for choice in graph.choices for option in choice.options for run in option.finals]
    index = {
        "runs": {short_id(run): run.slug for run in graph.runs},
        "choosing": {short_id(run): run.slug for choice in graph.choices for run in choice.tries},
        "possible": {short_id(run): run.slug for run in possible},
        "finals": sum(len(choice.options[0].finals) for choice in graph.choices),
        "corpora": {short_id(spec): spec.slug for spec in graph.corpora},
    }
    write_json(folder / "study.json", graph.study.to_json())
    write_json(folder / "index.json", index)


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
