from __future__ import annotations

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
                "test accuracy": round(result.test.accuracy, 4) if result else None,
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
