from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from optaware.cli._options import StoreDir, store_at

__all__ = ["script"]


def script(
    spec: Path,
    /,
    *,
    store: StoreDir = None,
    quiet: Annotated[bool, Parameter(negative=(), help="Print nothing but the result.")] = False,
) -> int:
    """Do one run of a script, as `plan run --manifest` has written it down; what every executor runs.

    Parameters
    ----------
    spec
        The run's spec.json.
    """
    from optaware._io import read_json
    from optaware.records import parse_record
    from optaware.records.plan_run import ScriptSpec
    from optaware.study import ScriptFolder, script_one, stop_requests

    run = parse_record(ScriptSpec, read_json(spec), str(spec))
    folder = ScriptFolder(store_at(store).script_folder(run))
    with stop_requests() as should_stop:
        result = script_one(run, folder, should_stop=should_stop)
    if not quiet:
        print(f"{folder.path}: " + ", ".join(f"{name} {value:g}" for name, value in result.metrics.items()))
    return 0
