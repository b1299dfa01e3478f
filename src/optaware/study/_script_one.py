from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from optaware._io import lock, read_json, remove_half_files, storage_errors, write_json, write_text
from optaware.errors import InputError, OptawareError, Problem, StoppedBySignal
from optaware.records import parse_record
from optaware.records.plan_run import ScriptResult, ScriptSpec
from optaware.store import environment
from optaware.study._script_metrics import collect_metrics

__all__ = ["ScriptFolder", "script_one"]

_POLL_S = 0.05
_GRACE_S = 20.0


@dataclass(frozen=True)
class ScriptFolder:
    """The files of one run of a script; `out` is the folder that the script is given to write to."""

    path: Path

    @property
    def run_id(self) -> str:
        """The first 12 digits of the spec's fingerprint."""
        return self.path.name[:12]

    @property
    def out(self) -> Path:
        """Where the script writes."""
        return self.path / "out"

    @property
    def output(self) -> Path:
        """What the script printed in its last attempt."""
        return self.path / "output.txt"

    @property
    def is_done(self) -> bool:
        """Whether it was finished; the marker is written last."""
        return (self.path / "DONE").exists()

    def read_result(self) -> ScriptResult:
        """The result of a finished run."""
        path = self.path / "result.json"
        return parse_record(ScriptResult, read_json(path), str(path))

    def read_status(self) -> dict[str, Any]:
        """State and detail as last written; empty before the first."""
        path = self.path / "status.json"
        return dict(read_json(path)) if path.exists() else {}

    def write_status(self, state: str, detail: str = "") -> None:
        """Write where the run stands."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(self.path / "status.json", {"state": state, "detail": detail, "pid": os.getpid(), "updated": now})


@dataclass(frozen=True)
class _Ended:
    code: int
    wall_s: float
    cpu_s: float
    peak_memory_bytes: int


def script_one(
    spec: ScriptSpec, folder: ScriptFolder, *, should_stop: Callable[[], bool] = lambda: False
) -> ScriptResult:
    """Run a script once, or read what is done; what fails is recorded as failed and runs again on the next call.

    The script is a process of its own in a session of its own. It is given what its spec says and nothing else; what it
    prints is kept in `output.txt`, its files lie in `out/`. A script that can resume finds its files there.

    Args:
        spec: The run.
        folder: Where it lies.
        should_stop: Asked several times a second; a stop ends the script.

    Raises:
        InputError: The command cannot be started, fails or takes too long, or metrics are missing or are no numbers.
        StoppedBySignal: It was told to stop.
    """
    with lock(folder.path / ".lock"):
        if folder.is_done:
            return folder.read_result()
        remove_half_files(folder.path)
        write_json(folder.path / "spec.json", spec.to_json())
        write_json(folder.path / "env.json", environment())
        folder.write_status("running")
        try:
            ended = _run(spec, folder, should_stop)
            metrics = collect_metrics(spec.metrics, folder.out, folder.output)
        except StoppedBySignal as error:
            folder.write_status("stopped", str(error))
            raise
        except OptawareError as error:
            folder.write_status("failed", str(error))
            raise
        result = ScriptResult(
            run_id=folder.run_id,
            metrics=metrics,
            wall_s=ended.wall_s,
            cpu_s=ended.cpu_s,
            peak_memory_bytes=ended.peak_memory_bytes,
        )
        write_json(folder.path / "result.json", result.to_json())
        folder.write_status("done")
        write_text(folder.path / "DONE", "")
    return result


def _run(spec: ScriptSpec, folder: ScriptFolder, should_stop: Callable[[], bool]) -> _Ended:
    with storage_errors(folder.out):
        folder.out.mkdir(parents=True, exist_ok=True)
    for metric in spec.metrics.values():  # an earlier attempt's figures must not be taken for this one's
        if metric.file:
            (folder.out / metric.file).unlink(missing_ok=True)
    began = time.monotonic()
    with storage_errors(folder.output), folder.output.open("wb") as output:
        process = _start(spec, folder, output)
        try:
            usage = _wait(process, spec, folder, began, should_stop)
        except BaseException:
            _kill(process)
            raise
    ended = _Ended(
        code=process.returncode,
        wall_s=time.monotonic() - began,
        cpu_s=usage.ru_utime + usage.ru_stime,
        peak_memory_bytes=usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
    )
    if ended.code:
        how = f"killed by {signal.Signals(-ended.code).name}" if ended.code < 0 else f"exit code {ended.code}"
        raise InputError.of(
            "script-failed",
            _shown(spec),
            f"it ended with {how}; its last line: {_last_line(folder.output)}",
            f"See {folder.output}; the same command runs it again.",
        )
    return ended


def _start(spec: ScriptSpec, folder: ScriptFolder, output: Any) -> subprocess.Popen[bytes]:
    words, variables = list(spec.command), dict(spec.variables)
    if spec.out is not None:
        words[spec.out_at : spec.out_at] = spec.out.arguments(str(folder.out.resolve()))
        if spec.out.env:
            variables[spec.out.env] = str(folder.out.resolve())
    try:
        return subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=spec.cwd,
            env={**os.environ, **variables},
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        raise InputError.of(
            "script-not-started", _shown(spec), f"it cannot be started ({error})", "Correct the command."
        ) from error


def _wait(
    process: subprocess.Popen[bytes],
    spec: ScriptSpec,
    folder: ScriptFolder,
    began: float,
    should_stop: Callable[[], bool],
) -> resource.struct_rusage:
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return usage
        if should_stop():
            raise StoppedBySignal(
                Problem("stopped", folder.path.name, "it was told to stop", "Run the same command again.")
            )
        if spec.timeout_s is not None and time.monotonic() - began > spec.timeout_s:
            raise InputError.of(
                "script-timeout",
                _shown(spec),
                f"it took longer than {spec.timeout_s:g} s and was ended",
                "Allow it more time (timeout_s), or make it faster.",
            )
        time.sleep(_POLL_S)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the script and whatever it started: SIGTERM, then SIGKILL for what is left."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE_S)
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _shown(spec: ScriptSpec) -> str:
    text = " ".join(spec.command)
    return text if len(text) <= 300 else text[:299] + "…"


def _last_line(path: Path) -> str:
    with suppress(OSError), path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 4000))
        lines = file.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1][:500] if lines else "(it printed nothing)"
    return "(nothing)"
