from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from optaware._io import lock, remove_half_files, write_json
from optaware.errors import StorageError
from optaware.execute import Event, Executor, Job, Outcome
from optaware.plan import write_binding
from optaware.records import Binding, short_id
from optaware.records.plan_run import PlannedRuns, ScriptSpec
from optaware.store import Store
from optaware.study._driver import run_progress
from optaware.study._plan_arms import PlannedRun, arms_of_plan
from optaware.study._plan_binding import binding_of
from optaware.study._plan_file import PlanRequest
from optaware.study._plan_scripts import script_arms
from optaware.tasks import get_task

if TYPE_CHECKING:
    from optaware.report import AblationFiles

__all__ = ["PlanGraph", "PlanOutcome", "make_plan_graph", "report_plan", "run_plan"]


@dataclass(frozen=True)
class PlanGraph:
    """A plan, bound, with the runs that it takes.

    Attributes:
        request: What was asked for.
        binding: What the plan means.
        planned: Arms and run ids, for the report.
        runs: Run specs in the order in which they are run: baseline first, then by rank.
        scripts: The same for a stranger's script.
        folder: Where the plan's own files lie.
    """

    request: PlanRequest
    binding: Binding
    planned: PlannedRuns
    runs: tuple[PlannedRun, ...]
    scripts: tuple[tuple[ScriptSpec, bool], ...]
    folder: Path


@dataclass
class PlanOutcome:
    """How a plan's run ended.

    Attributes:
        files: The report; None when it was stopped before there was anything to report.
        failures: Runs that failed, by id, with the reason.
        stopped: Whether the same command goes on with it.
        abandoned: Why the arms were not run, when every run of the baseline failed.
    """

    files: AblationFiles | None = None
    failures: dict[str, str] = field(default_factory=dict)
    stopped: bool = False
    abandoned: str = ""


def make_plan_graph(request: PlanRequest, store: Store) -> PlanGraph:
    """Bind a plan and work out its arms and runs. Imports no torch and runs nothing.

    Raises:
        InputError: The plan, its binding or the configuration cannot be used; all faults at once.
    """
    binding, folder = binding_of(request, store)
    if request.manifest is not None:
        planned, scripts = script_arms(request, request.manifest, binding)
        return PlanGraph(request, binding, planned, (), tuple(scripts), folder)
    data = request.spec.data
    task = get_task(data.task) if data is not None and data.kind == "task" else None
    planned, runs = arms_of_plan(request.spec, binding, task.sha256 if task else None)
    return PlanGraph(request, binding, planned, tuple(runs), (), folder)


def run_plan(
    graph: PlanGraph,
    store: Store,
    make_executor: Callable[[Callable[[], bool]], Executor],
    *,
    should_stop: Callable[[], bool] = lambda: False,
    data_dir: Path | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
) -> PlanOutcome:
    """Do what is left of a plan's runs, then build its report. The same call resumes; what failed is run again.

    The baseline's runs come first. When all of them fail the arms are not run: nothing could be said about them.

    Args:
        graph: The plan and its runs.
        store: Where results lie.
        make_executor: Makes the executor, given the question whether to stop.
        should_stop: Asked by the executor.
        data_dir: Folder of task data.
        on_event: Receives the executor's events.

    Raises:
        StorageError: Another process runs the same plan.
    """
    outcome = PlanOutcome()
    with lock(graph.folder / ".lock", wait=False) as mine:
        if not mine:
            name = graph.planned.spec.name
            raise StorageError.of(
                "study-busy", name, "another process runs it", "Wait for it or stop it.", str(graph.folder)
            )
        remove_half_files(graph.folder)
        write_binding(graph.folder / "binding.yaml", graph.binding)
        write_json(graph.folder / "planned.json", graph.planned.to_json())
        jobs = _jobs(graph, store, data_dir)
        baseline = set(graph.planned.baseline.runs.values())
        ended: dict[str, Outcome] = {}

        def hopeless() -> bool:
            states = [ended[key].state for key in baseline if key in ended]
            return len(states) == len(baseline) and all(state == "failed" for state in states)

        def relay(event: Event) -> None:
            if event.outcome is not None:
                ended[event.job.key] = event.outcome
            on_event(event)

        results = make_executor(lambda: should_stop() or hopeless()).run(jobs, relay)
        for result in results:
            if result.state == "failed":
                outcome.failures[result.key.removesuffix(_REPEAT)] = result.detail
        if hopeless():
            outcome.abandoned = "every run of the baseline failed, so the arms were not run"
        else:
            outcome.stopped = any(result.state == "stopped" for result in results)
        outcome.files = report_plan(graph, store, outcome.failures)
    return outcome


def report_plan(graph: PlanGraph, store: Store, failures: dict[str, str] | None = None) -> AblationFiles:
    """Build a plan's report from what is on disk."""
    from optaware.report import build_ablation_report
    from optaware.study._plan_measure import measure_runs

    measured = measure_runs(graph.planned, store, graph.folder, scripts=bool(graph.scripts))
    return build_ablation_report(graph.planned, measured, graph.folder, failures=failures or {})


_REPEAT = ":again"
"""Ends the key of the run that repeats another one: it has the same id, in a store of its own."""


def _jobs(graph: PlanGraph, store: Store, data_dir: Path | None) -> list[Job]:
    again = Store(graph.folder / "repeat")
    titles = _titles(graph.planned)
    jobs = []
    for run in graph.runs:
        place = again if run.repeat else store
        if not place.run_folder(run.spec).is_done:
            jobs.append(_train_job(run, titles[short_id(run.spec)], place, data_dir, graph.planned.spec.timeout_s))
    for spec, repeat in graph.scripts:
        place = again if repeat else store
        folder = place.script_folder(spec)
        if not (folder / "DONE").exists():
            write_json(folder / "spec.json", spec.to_json())
            arguments = ("plan", "script", str(folder / "spec.json"), "--store", str(place.root), "--quiet")
            key = short_id(spec) + (_REPEAT if repeat else "")
            title = titles[short_id(spec)] + (" (again)" if repeat else "")
            jobs.append(Job(key, title, arguments, folder / "log.txt", threads=graph.planned.spec.threads))
    return jobs


def _titles(planned: PlannedRuns) -> dict[str, str]:
    """Arm and seed in words, by run id."""
    arms = [("baseline", planned.baseline), *([("baseline", planned.noise)] if planned.noise else [])]
    arms += [(f"{entry.name}: {arm.label}", arm) for entry in planned.ablations for arm in entry.arms]
    titles = {planned.zero_shot: "untrained model"} if planned.zero_shot else {}
    for name, arm in arms:
        for seed, key in arm.runs.items():
            titles.setdefault(key, f"{name}, seed {seed}")
    return titles


def _train_job(run: PlannedRun, title: str, store: Store, data_dir: Path | None, timeout_s: float | None) -> Job:
    folder = store.run_folder(run.spec)
    if not folder.spec.exists():
        write_json(folder.spec, run.spec.to_json())
    data = ("--data-dir", str(data_dir)) if data_dir else ()
    return Job(
        key=short_id(run.spec) + (_REPEAT if run.repeat else ""),
        title=title + (" (again)" if run.repeat else ""),
        arguments=("train", str(folder.spec), "--store", str(store.root), "--quiet", *data),
        log=folder.log,
        threads=run.spec.threads,
        timeout_s=timeout_s,
        progress=lambda: run_progress(folder.path, run.spec),
    )
