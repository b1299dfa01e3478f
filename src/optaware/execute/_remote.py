"""What a worker of another scheduler does for a job: run its command line as a process, and see to its end.

`python -m optaware.execute._remote TICKET.json` does it for schedulers that run commands (Slurm): the ticket holds the
arguments of `run_command`, and the exit code is written to the file that it names.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType

from optaware._io import read_json, write_json, write_text
from optaware.execute._job import PARENT_VARIABLE
from optaware.execute._worker import end, open_log, start

__all__ = ["OrphanedError", "run_command"]

_POLL_S = 0.2


class OrphanedError(Exception):
    """This process has lost the one that watched it: its end is nobody's answer, and the job begins again elsewhere."""


def run_command(
    command: list[str], added: dict[str, str], log: str, timeout_s: float | None, note: str | None
) -> tuple[int, str]:
    """Run one command and wait for it.

    Its process stops when this one is gone (it looks for its parent at every step), and is told to stop when the job
    is cancelled here or this process has lost its own parent.

    Args:
        command: Program and arguments.
        added: Variables beside the worker's own environment.
        log: File that its output is appended to; it must lie where this machine can write.
        timeout_s: Seconds after which it is stopped.
        note: File that holds the id of this worker process for as long as the command runs; None: nowhere. A driver
            that cancels a job waits until it is gone.

    Returns:
        Exit code, and why it was ended from here, or nothing.

    Raises:
        OrphanedError: The parent of this process went away; the command was ended.
    """
    if note is None:
        return _run(command, added, log, timeout_s)
    held = Path(note)
    write_text(held, str(os.getpid()))
    try:
        return _run(command, added, log, timeout_s)
    finally:
        held.unlink(missing_ok=True)


def _run(command: list[str], added: dict[str, str], log: str, timeout_s: float | None) -> tuple[int, str]:
    _listen()
    parent, began = os.getppid(), time.monotonic()
    with open_log(Path(log)) as file:
        process = start(command, {**added, PARENT_VARIABLE: str(os.getpid())}, file)
        try:
            while (code := process.poll()) is None:
                if timeout_s is not None and time.monotonic() - began > timeout_s:
                    return end(process), f"it took longer than {timeout_s:g} s"
                if os.getppid() != parent:
                    raise OrphanedError
                time.sleep(_POLL_S)
        except BaseException:  # cancelled or orphaned: the command ends in order before the worker goes on
            end(process)
            raise
        return code, ""


def _listen() -> None:
    """Hear SIGINT, by which Ray cancels a task, also where a script started the driver in the background.

    There SIGINT is ignored, and so it is by whatever the driver starts.
    """
    heard = threading.current_thread() is threading.main_thread()
    if heard and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _main(ticket: Path) -> None:
    asked = read_json(ticket)

    def leave(number: int, frame: FrameType | None) -> None:
        raise SystemExit(3)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)
    try:
        code, reason = run_command(asked["command"], asked["added"], asked["log"], asked["timeout_s"], asked["note"])
    except OrphanedError:
        return  # no exit code: the driver takes it for a machine that failed, and submits the job again
    except (OSError, subprocess.SubprocessError) as error:
        code, reason = 1, f"it could not be started ({error})"
    write_json(Path(asked["exit"]), {"code": code, "reason": reason})


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
