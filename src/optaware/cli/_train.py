from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from optaware.cli._options import AsJson, DataDir, StoreDir, data_dir, print_json, store_at

if TYPE_CHECKING:
    from optaware.records import RunResult, RunSpec

__all__ = ["train"]


def train(
    spec: Path,
    /,
    *,
    set: Annotated[
        tuple[str, ...],
        Parameter(help="Change a field of the spec, as in `--set method.lr=1e-5` (repeat the option)."),
    ] = (),
    store: StoreDir = None,
    data: DataDir = None,
    until_step: Annotated[
        int | None, Parameter(help="Stop with a checkpoint once this update is made; the same command goes on.")
    ] = None,
    quiet: Annotated[bool, Parameter(negative=(), help="Print nothing but the result.")] = False,
    json: AsJson = False,
) -> int:
    """Do one training run, or go on with it; its folder is named by the hash of its spec.

    Under `torchrun --nproc-per-node N -m optaware train SPEC`, N processes share the queries of each step (forward-only
    methods); the outcome is that of one process.

    Parameters
    ----------
    spec
        Run spec (YAML or JSON): model, data, method, schedule, seed.
    """
    from optaware.errors import StoppedBySignal
    from optaware.study import stop_requests, train_together

    logging.basicConfig(stream=sys.stderr, level=logging.WARNING if quiet else logging.INFO, format="%(message)s")
    run = load_run_spec(spec, set)
    folder = store_at(store)
    with stop_requests() as should_stop:
        try:
            result = train_together(
                run,
                folder,
                data_dir=data_dir(data),
                should_stop=should_stop,
                on_event=None if quiet else _show,
                until=until_step,
            )
        except StoppedBySignal as error:
            if error.code != "paused":
                raise
            print(f"{folder.run_folder(run).path}: {error.problems[0].why}", file=sys.stderr)
            return 0
    if result is None:  # one of several processes, and not the one that speaks
        return 0
    if json:
        print_json(result.to_json())
    else:
        print(f"{folder.run_folder(run).path}: {said(result)}")
    return 0


def said(result: RunResult) -> str:
    """The outcome in words: test accuracy, or dev accuracy of a run that never looks at test rows."""
    if result.test is not None:
        return f"test accuracy {100 * result.test.accuracy:.2f} % of {result.test.n} rows"
    if result.dev is not None:
        return f"dev accuracy {100 * result.dev.accuracy:.2f} % of {result.dev.n} rows (test rows not scored)"
    return "nothing was scored"


def load_run_spec(path: Path, changes: tuple[str, ...] = ()) -> RunSpec:
    """Read a run spec and apply `field.path=value` changes (values as in YAML).

    Raises:
        InputError: Malformed file or changes, or fields that are wrong (all at once).
    """
    from optaware._io import read_yaml
    from optaware.errors import InputError
    from optaware.records import RunSpec, parse_record

    data = read_yaml(path)
    if not isinstance(data, dict):
        raise InputError.of("not-a-mapping", str(path), "a run spec is a mapping of fields", "See docs/run_specs.md.")
    for change in changes:
        name, sign, value = change.partition("=")
        if not sign or not name:
            raise InputError.of("bad-change", change, "it has not the form field=value", "As in --set method.lr=1e-5.")
        _put(data, name.split("."), read_yaml(value, name=f"--set {name}"), change)
    return parse_record(RunSpec, data, str(path))


def _put(data: dict[str, Any], path: list[str], value: Any, change: str) -> None:
    from optaware.errors import InputError

    for part in path[:-1]:
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            raise InputError.of("bad-change", change, f"{part} holds no fields", "Name a field of the spec.")
    data[path[-1]] = value


def _show(event: Any) -> None:
    print(event, file=sys.stderr, flush=True)
