"""A run's curves for experiment trackers, read from its folder: one road for every executor, live or long after."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from optaware.errors import InputError
from optaware.store import RunFolder

__all__ = ["Tracker", "TrackerName", "follow", "open_tracker", "track"]

TrackerName = Literal["tensorboard", "trackio", "wandb", "mlflow"]


class Tracker(Protocol):
    """What is asked of a tracker."""

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Numbers of one step."""
        ...

    def close(self) -> None:
        """Everything was logged."""
        ...


def track(folder: RunFolder, tracker: Tracker, *, wait: bool = False, poll_s: float = 1.0) -> int:
    """Send a run's steps, evaluations and result to a tracker.

    Args:
        folder: The run.
        tracker: Where to.
        wait: Go on until the run has ended.
        poll_s: Seconds between looks, when waiting.

    Returns:
        How many rows were sent.
    """
    sent = 0
    for name, row in follow(folder, wait=wait, poll_s=poll_s):
        prefix = "train" if name == "steps" else str(row.get("split", "dev"))
        values = {f"{prefix}/{key}": float(value) for key, value in _numbers(row).items() if key != "step"}
        if values:
            tracker.log(values, int(row["step"]))
            sent += 1
    if folder.is_done:
        result = folder.read_result()
        values = {f"result/{key}": value for key, value in _numbers(result.metrics).items()}
        if result.test is not None:
            values["result/test_accuracy"] = result.test.accuracy
        tracker.log({**values, "result/train_s": result.train_s}, result.steps)
    tracker.close()
    return sent


def follow(folder: RunFolder, *, wait: bool, poll_s: float = 1.0) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a run's step and evaluation files as they are written: `steps` or `evals`, and the row.

    Args:
        folder: The run.
        wait: Go on until the run is done, failed or stopped; else end with what is there.
        poll_s: Seconds between looks.
    """
    places = {"steps": folder.steps, "evals": folder.evals}
    read = dict.fromkeys(places, 0)
    while True:
        status = folder.read_status()
        ended = folder.is_done or (status is not None and status.state != "running")
        for name, path in places.items():
            rows, read[name] = _new_rows(path, read[name])
            yield from ((name, row) for row in rows)
        if ended or not wait:
            return
        time.sleep(poll_s)


def _new_rows(path: Path, start: int) -> tuple[list[dict[str, Any]], int]:
    """Whole lines after byte `start`. A file that became shorter (a resumed run cuts it) is read from its new end."""
    if not path.exists():
        return [], start
    size = path.stat().st_size
    if size <= start:
        return [], min(size, start)
    with path.open("rb") as file:
        file.seek(start)
        data = file.read()
    end = data.rfind(b"\n") + 1
    rows = []
    for line in data[:end].splitlines():
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
    return rows, start + end


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    nested = row.get("metrics")
    flat = {**row, **(nested if isinstance(nested, Mapping) else {})}
    return {key: value for key, value in flat.items() if isinstance(value, int | float) and not isinstance(value, bool)}


def open_tracker(name: TrackerName, project: str, run: str, config: Mapping[str, Any], folder: Path) -> Tracker:
    """A tracker's run.

    Args:
        name: Which tracker.
        project: Project or experiment.
        run: What to call the run there.
        config: Its settings, flat.
        folder: Where a tracker that writes files does so.

    Raises:
        InputError: Its package is not installed.
    """
    makers: dict[str, Callable[[str, str, Mapping[str, Any], Path], Tracker]] = {
        "tensorboard": _TensorBoard,
        "trackio": _Trackio,
        "wandb": _Wandb,
        "mlflow": _Mlflow,
    }
    try:
        return makers[name](project, run, config, folder)
    except ImportError as error:
        raise InputError.of(
            "extra-missing", name, f"{error.name or name} is not installed", f"Install it: pip install {name}."
        ) from error


class _TensorBoard:
    def __init__(self, project: str, run: str, config: Mapping[str, Any], folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter  # needs the package tensorboard

        self._writer = SummaryWriter(str(folder / project / run))
        self._writer.add_text("spec", "\n".join(f"    {key}: {value}" for key, value in config.items()))

    def log(self, values: Mapping[str, float], step: int) -> None:
        for key, value in values.items():
            self._writer.add_scalar(key, value, step)

    def close(self) -> None:
        self._writer.close()


class _Trackio:
    _module = "trackio"

    def __init__(self, project: str, run: str, config: Mapping[str, Any], folder: Path) -> None:
        from importlib import import_module

        self._api: Any = import_module(self._module)
        self._api.init(project=project, name=run, config=dict(config))

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._api.log(dict(values), step=step)

    def close(self) -> None:
        self._api.finish()


class _Wandb(_Trackio):
    _module = "wandb"


class _Mlflow:
    def __init__(self, project: str, run: str, config: Mapping[str, Any], folder: Path) -> None:
        from importlib import import_module

        self._api: Any = import_module("mlflow")
        self._api.set_experiment(project)
        self._api.start_run(run_name=run)
        self._api.log_params({key: str(value)[:500] for key, value in config.items()})

    def log(self, values: Mapping[str, float], step: int) -> None:
        self._api.log_metrics(dict(values), step=step)

    def close(self) -> None:
        self._api.end_run()
