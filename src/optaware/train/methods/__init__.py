"""Methods that bring their own kind of data and their own loop: one package each, found by the method's name.

Such a package has `run(spec, folder, *, data_dir, on_event, should_stop) -> RunResult`. It reads `spec.data`, trains,
scores its test split once and returns the result. With the folder as a stop left it, it resumes, to the same bits.
Locking, `spec.json`, `env.json`, `status.json`, `result.json`, `DONE` and the removal of checkpoints are the caller's.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

from optaware.records import RunResult, RunSpec
from optaware.store import RunFolder
from optaware.train._types import TrainEvent

__all__ = ["HOMES", "MethodRun", "method_run"]

HOMES: dict[str, str] = {
    "complementary-prompt-tuning": "prompt_tuning",
    "gradient-harmonization": "gradient_harmonization",
    "seeded-lora": "seeded_lora",
}
"""Method name -> package below this one."""


class MethodRun(Protocol):
    """A whole run of a method: from its data to its result."""

    def __call__(
        self,
        spec: RunSpec,
        folder: RunFolder,
        *,
        data_dir: Path | None,
        on_event: Callable[[TrainEvent], None],
        should_stop: Callable[[], bool],
    ) -> RunResult:
        """Do the run, or go on with it.

        Args:
            spec: The run.
            folder: Where it writes `resolved.json`, `steps.jsonl`, `eval.jsonl` and checkpoints.
            data_dir: Folder of data, as for tasks.
            on_event: Told of each update and evaluation.
            should_stop: Asked before each update; when it says yes, a checkpoint is written and the run stops.

        Raises:
            StoppedBySignal: `should_stop` said so.
            OptawareError: The data or the method's settings cannot be used.
        """
        ...


def method_run(name: str) -> MethodRun | None:
    """The run of a method by its name; None for methods that train on the rows of a task."""
    if name not in HOMES:
        return None
    return cast(MethodRun, import_module(f"optaware.train.methods.{HOMES[name]}").run)
