from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from optaware.cli._options import AsJson, StoreDir, print_json, print_table, store_at

__all__ = ["app"]

app = App(name="runs", help="Runs of a results folder.")


@app.command(name="list")
def list_(
    *,
    store: StoreDir = None,
    state: Annotated[str | None, Parameter(help="Only runs in this state: done, running, failed, stopped.")] = None,
    json: AsJson = False,
) -> int:
    """List runs with where they stand and what they reached."""
    rows = []
    for run in store_at(store).runs():
        status = run.read_status()
        now = "done" if run.is_done else status.state if status else "planned"
        if state not in (None, now):
            continue
        result = run.read_result() if run.is_done else None
        rows.append(
            {
                "run": run.run_id,
                "what": run.path.name[13:],
                "state": now if result is None or result.outcome == "done" else result.outcome,
                "steps": result.steps if result else status.step if status else 0,
                "test accuracy": round(result.test.accuracy, 4) if result and result.test else None,
            }
        )
    if json:
        print_json(rows)
    else:
        print_table(["run", "what", "state", "steps", "test accuracy"], [[*row.values()] for row in rows])
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
        print_json({"folder": str(folder.path), **files})
        return 0
    print(folder.path)
    for name, value in files.items():
        print_table([name, ""], [[key, item] for key, item in value.items()])
    return 0


@app.command
def replay(
    run: str,
    /,
    *,
    step: Annotated[
        int | None, Parameter(help="Rebuild the weights after this update, not those the run chose.")
    ] = None,
    out: Annotated[Path | None, Parameter(help="Folder to write the model or adapter to.")] = None,
    store: StoreDir = None,
    json: AsJson = False,
) -> int:
    """Rebuild a run's weights from the base model and its journal, without data and without forward passes.

    Says whether the weights are the run's to the bit, and compares them with those that the run kept.

    Parameters
    ----------
    run
        Run id (its first digits suffice) or folder.
    """
    from optaware.study import replay_run

    report = replay_run(store_at(store).find_run(run), step=step, out=out)
    if json:
        print_json(report.to_json())
        return 0
    print(f"{report.run_id}: weights after step {report.step}")
    if report.exact:
        print("exact: made on the platform that the journal was written on")
    else:
        print(f"not exact: another platform; bound {report.bound:.2g} of the largest weight of each tensor")
    if report.identical:
        print("bit-identical to the weights that the run kept")
    elif report.compared:
        print(f"differs from the kept weights by {report.largest_difference:.2g} of a tensor's largest weight")
    if report.out:
        print(f"written to {report.out}")
    return 0 if not report.exact or report.identical is not False else 1
