"""Processes that are cheap to start and can be killed: forks of one that has imported everything, or cold ones."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

__all__ = ["Forked", "adopt_orphans", "cold", "descendants", "fork_workers", "optaware", "reap", "warm_up"]

_PR_SET_CHILD_SUBREAPER = 36


def warm_up(first: Callable[[], int], scratch: Path) -> None:
    """Import what a study needs, so that a fork need not: what one child has imported at its end is imported here.

    Nothing is computed in this process: a fork of one that has computed gradients could not compute any.

    Args:
        first: A piece of work that uses all of it.
        scratch: Folder for its output.
    """
    import torch

    torch.set_num_threads(1)
    names, log = scratch / "modules.txt", scratch / "warm-up.log"

    def work() -> int:
        with contextlib.suppress(SystemExit):
            first()
        names.write_text("\n".join(sys.modules), "utf-8")
        return 0

    with log.open("ab") as file:
        if Forked(work, file).wait() != 0:
            raise RuntimeError(f"the warm-up failed, see {log}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in names.read_text("utf-8").split("\n"):
            if name not in sys.modules and "__main__" not in name:
                with contextlib.suppress(Exception):
                    importlib.import_module(name)
    if (threads := len(list(Path("/proc/self/task").iterdir()))) > 1:
        raise RuntimeError(f"{threads} threads run here, a fork would lose them")


def adopt_orphans() -> None:
    """Orphans of killed processes become children of this one, so that none is overlooked."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap() -> None:
    """Take note of ended children that nobody waits for (orphans of killed drivers)."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


class Forked:
    """A child made by `fork` alone, with the part of `subprocess.Popen` that optaware uses.

    Args:
        work: What it does; its value is the exit code.
        log: Where it prints.
        added: Further environment variables.
    """

    def __init__(self, work: Callable[[], int], log: IO[bytes] | int, added: dict[str, str] | None = None) -> None:
        self.returncode: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        output = log if isinstance(log, int) else log.fileno()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.setsid()
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(output, 1)
                os.dup2(output, 2)
                # As after exec: nothing of the parent's files is shared, above all no lock.
                os.closerange(3, 1 << 16)
                for number in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
                os.environ.update(added or {})
                code = work()
            except SystemExit as error:
                code = error.code if isinstance(error.code, int) else 1
            except BaseException:
                traceback.print_exc()
            finally:
                with contextlib.suppress(BaseException):
                    sys.stdout.flush()
                    sys.stderr.flush()
                os._exit(code)

    def poll(self) -> int | None:
        """The exit code (negative: the signal), or None while it runs."""
        if self.returncode is None:
            with contextlib.suppress(ChildProcessError):
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                if pid:
                    self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended."""
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired("fork", timeout or 0)
            time.sleep(0.002)
        return code

    def send_signal(self, number: int) -> None:
        """Send it a signal."""
        if self.poll() is None:
            os.kill(self.pid, number)


def optaware(arguments: Sequence[str]) -> int:
    """The command line in this process, as `python -m optaware` does it."""
    from optaware.cli import main

    sys.argv = ["optaware", *arguments]
    main()
    return 0


def cold(arguments: Sequence[str], log: Path) -> subprocess.Popen[bytes]:
    """The command line in a process that starts from nothing."""
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "optaware", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def fork_workers() -> None:
    """Within a warm driver: its workers are forks too. All else of the local executor stays as it is."""
    from optaware.execute import _subprocess

    def start(command: list[str], added: dict[str, str], log: IO[bytes]) -> Any:
        assert command[1:3] == ["-m", "optaware"]
        return Forked(lambda: optaware(command[3:]), log, added)

    _subprocess.start = start


def descendants(pid: int) -> list[int]:
    """Processes below `pid`, parents before children."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                found += [child, *descendants(child)]
    return found
