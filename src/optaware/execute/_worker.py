"""The one command line that every backend runs for a job, what its process is given, and what its end means."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

from optaware._io import make_folder, storage_errors
from optaware.errors import MemoryUsedUp
from optaware.execute._job import PARENT_VARIABLE, Job, Outcome

__all__ = [
    "GRACE_S",
    "NO_ROOM",
    "command_line",
    "died",
    "end",
    "environment",
    "open_log",
    "outcome_of",
    "signal_group",
    "start",
    "travelling",
]

GRACE_S = 60.0
"""How long a worker that was told to stop may take to finish its step and write a checkpoint."""

NO_ROOM = MemoryUsedUp.exit_code
"""Exit code of a worker that found no memory on its device."""

_TRAVELS = ("PYTHONPATH", "HF_HOME", "HF_HUB_OFFLINE", "HF_HUB_CACHE", "XDG_CACHE_HOME")


def command_line(job: Job) -> list[str]:
    """`python -m optaware …`, as single arguments; no shell reads them."""
    return [sys.executable, "-m", "optaware", *job.arguments]


def environment(threads: int, gpu: str | None = None) -> dict[str, str]:
    """What a worker's environment has beside its parent's: its threads, its parent, its GPU."""
    added = {
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "TOKENIZERS_PARALLELISM": "false",
        PARENT_VARIABLE: str(os.getpid()),
    }
    return added if gpu is None else {**added, "CUDA_VISIBLE_DEVICES": gpu}


def travelling() -> dict[str, str]:
    """The variables that a worker on another machine needs: optaware's own and where code and models lie; no keys."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in _TRAVELS or (name.startswith("OPTAWARE_") and name != PARENT_VARIABLE and "KEY" not in name)
    }


def open_log(path: Path) -> IO[bytes]:
    """A job's log, to be written on at its end."""
    with storage_errors(path):
        make_folder(path.parent)
        return path.open("ab")


def start(command: list[str], added: dict[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a worker in a session of its own: Ctrl-C reaches the driver only, which stops its workers in order."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env={**os.environ, **added},
        start_new_session=True,
    )


def signal_group(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a worker and, when it is SIGKILL, to whatever it has started in its session."""
    with suppress(ProcessLookupError, PermissionError):
        if number == signal.SIGKILL:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)


def end(process: subprocess.Popen[bytes], grace_s: float = GRACE_S) -> int:
    """Tell a worker to stop, wait, kill it if it does not; returns its exit code."""
    signal_group(process, signal.SIGTERM)
    try:
        return process.wait(grace_s)
    except subprocess.TimeoutExpired:
        signal_group(process, signal.SIGKILL)
        return process.wait()


def died(code: int) -> bool:
    """Whether the worker did not end by itself: a signal killed it, as when memory ran out or the machine left."""
    return code < 0


def outcome_of(key: str, code: int, log: Path, reason: str = "") -> Outcome:
    """What an exit code means: 0 done, 3 stopped (the same command goes on), anything else failed.

    Args:
        key: The job's key.
        code: The worker's exit code; negative: the signal that killed it.
        log: Its log, whose last lines say why it failed.
        reason: Why the driver ended it, when it did.
    """
    if code == 0 and not reason:
        return Outcome(key, "done")
    detail = "; ".join(part for part in (reason, _last_lines(log)) if part)
    if code == 3 and not reason:
        return Outcome(key, "stopped", detail)
    if code < 0 and not reason:
        detail = f"killed by {_name(-code)}; {detail}"
    return Outcome(key, "failed", detail or f"exit code {code}, see {log}")


def _name(number: int) -> str:
    """A signal's name; most of the real-time ones have none."""
    known = {each.value: each.name for each in signal.Signals}
    return known.get(number, f"signal {number}")


def _last_lines(log: Path, limit: int = 2000) -> str:
    with suppress(OSError), log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - limit))
        return file.read().decode("utf-8", "replace").strip().rsplit("\n\n", 1)[-1]
    return ""
