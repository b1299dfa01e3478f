from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import App, Parameter

from optaware.cli._options import AsJson, StoreDir, print_json, print_table, store_at
from optaware.cli._runs_track import TrackerName

__all__ = ["app"]

app = App(name="runs", help="Runs of a results folder.")


@app.command(name="list")
def list_(
    *,
    store: StoreDir = None,
    state: Annotated[
        str | None, Parameter(help="Only runs in this state: done, running, failed, stopped, pruned.")
    ] = None,
    model: Annotated[str | None, Parameter(help="Only models whose name holds this.")] = None,
    task: Annotated[str | None, Parameter(help="Only tasks whose name holds this.")] = None,
    method: Annotated[str | None, Parameter(help="Only methods whose name holds this.")] = None,
    variant: Annotated[str | None, Parameter(help="Only this version of the training rows.")] = None,
    seed: Annotated[int | None, Parameter(help="Only this seed.")] = None,
    sort: Annotated[
        Literal["folder", "test_accuracy", "dev_accuracy", "updated", "train_s"],
        Parameter(help="Order; accuracies, times and dates from the highest."),
    ] = "folder",
    limit: Annotated[int | None, Parameter(help="At most so many rows.")] = None,
    json: AsJson = False,
) -> int:
    """List runs with where they stand and what they reached. Quick also with many runs: what is done is read once."""
    rows = [
        row
        for row in store_at(store).index()
        if state in (None, row["state"])
        and variant in (None, row["variant"])
        and seed in (None, row["seed"])
        and all(
            wanted is None or wanted.lower() in str(row[name]).lower()
            for name, wanted in (("model", model), ("task", task), ("method", method))
        )
    ]
    if sort != "folder":
        rows.sort(key=lambda row: (row[sort] is not None, row[sort] or 0), reverse=True)
    rows = rows[:limit]
    if json:
        print_json(rows)
        return 0
    columns = ["run", "what", "state", "steps", "test accuracy", "dev accuracy"]
    print_table(
        columns,
        [
            [row["run"], row["folder"][13:], row["state"], f"{row['steps'] or 0}/{row['of'] or 0}"]
            + ["" if row[name] is None else round(row[name], 4) for name in ("test_accuracy", "dev_accuracy")]
            for row in rows
        ],
    )
    return 0


@app.command
def diff(left: str, right: str, /, *, store: StoreDir = None, json: AsJson = False) -> int:
    """Show where two runs differ: spec first, then result and environment.

    Parameters
    ----------
    left
        Run id (its first digits suffice) or folder.
    right
        The other run.
    """
    from optaware._io import read_json
    from optaware.records.differences import differences

    place = store_at(store)
    runs = (place.find_run(left), place.find_run(right))
    found = {}
    for name in ("spec", "result", "env"):
        pair = [read_json(getattr(run, name)) if getattr(run, name).exists() else {} for run in runs]
        found[name] = differences(*pair)
    if json:
        print_json({name: [list(row) for row in rows] for name, rows in found.items()})
        return 0
    for name, rows in found.items():
        print_table([name, runs[0].run_id, runs[1].run_id], [list(row) for row in rows] or [["no difference", "", ""]])
    return 0


@app.command
def tail(
    run: str,
    /,
    *,
    follow: Annotated[bool, Parameter(negative=(), help="Go on until the run has ended.")] = False,
    every: Annotated[int, Parameter(help="Show every so manieth step.")] = 1,
    store: StoreDir = None,
) -> int:
    """Print a run's steps and evaluations; with --follow as they come.

    Parameters
    ----------
    run
        Run id (its first digits suffice) or folder.
    """
    from optaware.cli._runs_track import follow as rows_of
    from optaware.study import stop_requests

    folder = store_at(store).find_run(run)
    with stop_requests() as should_stop:
        for name, row in rows_of(folder, wait=follow):
            if should_stop():
                return 3
            if name == "steps" and row["step"] % max(1, every):
                continue
            shown = (
                ("loss", "accuracy", "lr", "forwards", "step_s") if name == "steps" else ("loss", "accuracy", "best")
            )
            values = ", ".join(f"{key} {row[key]:.4g}" for key in shown if isinstance(row.get(key), int | float))
            print(f"{'step' if name == 'steps' else row.get('split', 'dev'):>5} {row['step']:>7}  {values}", flush=True)
    status = folder.read_status()
    print(f"{folder.run_id}: {folder.damage() or (status.state if status else 'planned')}")
    return 0


@app.command
def track(
    run: tuple[str, ...],
    /,
    *,
    to: Annotated[TrackerName, Parameter(help="Tracker; its package must be installed.")],
    project: Annotated[str, Parameter(help="Project or experiment there.")] = "optaware",
    folder: Annotated[Path, Parameter(help="Where TensorBoard's files go.")] = Path("tracked"),
    follow: Annotated[bool, Parameter(negative=(), help="Go on until the runs have ended.")] = False,
    store: StoreDir = None,
) -> int:
    """Send curves and results of runs to TensorBoard, trackio, Weights & Biases or MLflow, live or afterwards.

    Parameters
    ----------
    run
        Run ids (their first digits suffice) or folders.
    """
    from optaware._io import read_json
    from optaware.cli._runs_track import open_tracker
    from optaware.cli._runs_track import track as send
    from optaware.records.differences import flat

    place = store_at(store)
    for found in [place.find_run(name) for name in run]:
        tracker = open_tracker(to, project, found.path.name, flat(read_json(found.spec)), folder)
        print(f"{found.run_id}: {send(found, tracker, wait=follow)} rows sent to {to}")
    return 0


@app.command
def show(run: str, /, *, store: StoreDir = None, json: AsJson = False) -> int:
    """Show one run: spec, status, result, environment.

    Parameters
    ----------
    run
        Run id (its first digits suffice) or folder.
    """
    from optaware._io import read_json

    folder = store_at(store).find_run(run)
    files = {
        name: read_json(path)
        for name, path in (
            ("spec", folder.spec),
            ("status", folder.status),
            ("resolved", folder.resolved),
            ("result", folder.result),
            ("env", folder.env),
        )
        if path.exists()
    }
    if json:
        print_json({"folder": str(folder.path), "damage": folder.damage(), **files})
        return 0
    print(folder.path)
    if damage := folder.damage():
        print(damage)
    for name, value in files.items():
        print_table([name, ""], [[key, item] for key, item in value.items()])
    return 0


@app.command
def replay(
    run: str,
    /,
    *,
    model: Annotated[
        str | None, Parameter(help="Base model of a journal file: hub name, path or asset. A run names its own.")
    ] = None,
    adapter: Annotated[
        Path | None, Parameter(help="Adapter that the training of a journal file started from, if any.")
    ] = None,
    dtype: Annotated[
        Literal["fp32", "bf16", "fp16"] | None,
        Parameter(help="Precision of a journal file's weights. Default: what the file says, else bf16."),
    ] = None,
    step: Annotated[
        int | None, Parameter(help="Rebuild the weights after this update, not those the run chose.")
    ] = None,
    out: Annotated[Path | None, Parameter(help="Folder to write the model or adapter to.")] = None,
    store: StoreDir = None,
    json: AsJson = False,
) -> int:
    """Rebuild weights from the base model and the journal of a training, without data and without forward passes.

    Says whether the weights are those of the training to the bit, and compares them with those that the run kept, or
    with the digest that an optimizer left.

    Parameters
    ----------
    run
        Run id (its first digits suffice) or folder; or a journal file, as `ZerothOrder` and its Trainer mixin write it.
    """
    from optaware.errors import InputError
    from optaware.study import replay_file, replay_run

    path = Path(run)
    if path.is_file() != (model is not None):
        why = "a journal file does not name its base model" if model is None else "a run names its own base model"
        raise InputError.of("replay-model", run, why, "Give --model with a journal file, and only with one.")
    if model is None:
        report = replay_run(store_at(store).find_run(run), step=step, out=out)
    else:
        report = replay_file(path, model, dtype=dtype, adapter=adapter, step=step, out=out)
    if json:
        print_json(report.to_json())
        return 0
    print(f"{report.run_id}: weights after step {report.step}")
    if report.exact:
        print("exact: made on the platform that the journal was written on")
    else:
        print(f"not exact: another platform; bound {report.bound:.2g} of the largest weight of each tensor")
    if report.identical:
        print("bit-identical to the weights that the " + ("training ended with" if model else "run kept"))
    elif report.largest_difference is not None:
        print(f"differs from the kept weights by {report.largest_difference:.2g} of a tensor's largest weight")
    elif report.compared:
        print("differs from the weights that the training ended with")
    if report.out:
        print(f"written to {report.out}")
    return 0 if not report.exact or report.identical is not False else 1


@app.command
def pack(file: Path, /, *, store: StoreDir = None, json: AsJson = False) -> int:
    """Write finished runs and corpora to one file, to be unpacked on another machine: no checkpoints, no replies.

    Parameters
    ----------
    file
        The archive, .tar.gz; one that is there is replaced.
    """
    from dataclasses import asdict

    from optaware.store import pack_store

    packed = pack_store(store_at(store), file)
    if json:
        print_json(asdict(packed))
        return 0
    words = ", ".join(f"{count} {kind}" for kind, count in packed.folders.items() if count)
    print(f"{file}: {words}, {packed.bytes / 1e6:.1f} MB")
    for name in packed.damaged:
        print(f"left out: {name} has lost bytes since it ended")
    return 0


@app.command
def unpack(file: Path, /, *, store: StoreDir = None, json: AsJson = False) -> int:
    """Put what an archive of `runs pack` holds into a results folder; what is there already stays as it is.

    The study's command goes on from there. Exits with 1 when something in the archive could not be used.

    Parameters
    ----------
    file
        The archive.
    """
    from dataclasses import asdict

    from optaware.store import unpack_store

    done = unpack_store(file, store_at(store))
    if json:
        print_json(asdict(done))
        return 1 if done.refused else 0
    words = ", ".join(f"{count} {kind}" for kind, count in done.taken.items() if count)
    print(f"{words or 'nothing'} put in place, {len(done.there)} were there already")
    for name in done.begun:
        print(f"left as it is: {name} was begun here and is not finished; its command goes on")
    for name, why in done.refused.items():
        print(f"refused: {name}: {why}")
    return 1 if done.refused else 0


@app.command
def watch(
    study: str | None = None,
    /,
    *,
    every_s: Annotated[float, Parameter(help="Seconds between looks.")] = 2.0,
    once: Annotated[bool, Parameter(negative=(), help="Look once.")] = False,
    store: StoreDir = None,
) -> int:
    """Watch a study while it runs, here or on a machine that shares its folder, until it has ended.

    On a terminal a page that is drawn anew; else a line for each run that begins, is scored on dev rows or ends. Only
    reads: Ctrl-C ends the watching, not the study.

    Parameters
    ----------
    study
        First digits of its id, or its name. Default: the study of the folder that was begun or gone on with last.
    """
    import time

    from rich.console import Console
    from rich.live import Live

    from optaware.cli._runs_watch import changes, find_study, look, screen, summary
    from optaware.study import stop_requests

    place = store_at(store)
    console = Console()
    seen = look(place, find_study(place, study))
    if once:
        console.print(screen(seen))
        return 0
    if not console.is_terminal:
        print(summary(seen), flush=True)
    before = None
    with stop_requests() as should_stop, Live(console=console, auto_refresh=False) as live:
        while True:
            if console.is_terminal:
                live.update(screen(seen), refresh=True)
            else:
                for line in changes(before, seen):
                    print(line, flush=True)
            if seen.is_over:
                break
            deadline = time.monotonic() + every_s
            while time.monotonic() < deadline:
                if should_stop():
                    return 3
                time.sleep(0.05)
            before, seen = seen, look(place, find_study(place, study))
    print(summary(seen))
    return 0
