from __future__ import annotations

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from optaware import __version__
from optaware.cli import (
    _adapters,
    _assets,
    _data,
    _data_evidence,
    _data_export,
    _data_rewrite,
    _doctor,
    _eval,
    _paper,
    _plan,
    _plan_run,
    _plan_script,
    _report,
    _run,
    _runs,
    _tasks,
    _train,
)
from optaware.errors import OptawareError
from optaware.models import memory_errors

__all__ = ["app", "invoke", "main"]

app = App(
    name="optaware",
    help=(
        "Optimization-aware fine-tuning: rewrite the training data for the optimizer, fine-tune with forward passes "
        "only or with first-order baselines, and report what helped, with intervals."
    ),
    version=__version__,
    help_format="markdown",
)
for function, name in (
    (_run.run, "run"),
    (_train.train, "train"),
    (_eval.evaluate, "eval"),
    (_doctor.doctor, "doctor"),
):
    app.command(function, name=name)
_data.app.command(_data_rewrite.rewrite, name="rewrite")
_data.app.command(_data_evidence.evidence, name="evidence")
_data.app.command(_data_export.export, name="export")
_plan.app.command(_plan_run.run, name="run")
_plan.app.command(_plan_script.script, name="script")
for group in (_paper.app, _plan.app, _data.app, _tasks.app, _assets.app, _adapters.app, _runs.app, _report.app):
    app.command(group)


def invoke(arguments: Sequence[str]) -> int:
    """Run one command line in this process.

    Returns:
        The exit code: 0 done, 1 finished with failures it names, 3 stopped.

    Raises:
        OptawareError: What went wrong, unprinted; its `exit_code` is what the command leaves with.
    """
    with memory_errors(" ".join(arguments[:2])):
        code = app(list(arguments), exit_on_error=False, print_error=True, result_action="return_value")
    return code if isinstance(code, int) else 0


def main() -> None:
    """Entry point: run `sys.argv`, print errors as problems, leave with the documented exit code."""
    try:
        code = invoke(sys.argv[1:])
    except OptawareError as error:
        _print_problems(error)
        code = error.exit_code
    except CycloptsError:
        code = 2
    except KeyboardInterrupt:
        print("Stopped. The same command goes on from here.", file=sys.stderr)
        code = 3
    except BrokenPipeError:
        sys.stderr.close()
        code = 0
    sys.exit(code)


def _print_problems(error: OptawareError) -> None:
    for problem in error.problems:
        print(f"error: {problem}", file=sys.stderr)
