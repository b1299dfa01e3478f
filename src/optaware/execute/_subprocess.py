from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO

from optaware._io import storage_errors
from optaware.execute._job import PARENT_VARIABLE, Event, Job, Outcome

__all__ = ["Subprocess"]

_POLL_S = 0.25
_PROGRESS_S = 1.0
_GRACE_S = 60.0


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    log: IO[bytes]


class Subprocess:
    """Runs each job in a process of its own, at most `workers` at a time.

    A job that asks for more than one thread takes as many places as threads, so that the machine is not oversubscribed.
    On a stop, workers get SIGTERM, finish their step, write a checkpoint and leave; after a minute they are killed.

    Args:
        workers: Places for single-thread jobs.
        should_stop: Asked several times a second.
    """

    def __init__(self, workers: int, should_stop: Callable[[], bool]) -> None:
        self._workers = workers
        self._should_stop = should_stop

    def run(self, jobs: Sequence[Job], on_event: Callable[[Event], None]) -> list[Outcome]:
        """Run all jobs (see `Executor.run`)."""
        waiting = list(jobs)
        running: list[_Running] = []
        outcomes: dict[str, Outcome] = {}
        next_progress = 0.0
        try:
            while (waiting or running) and not self._should_stop():
                self._start_what_fits(waiting, running, on_event)
                time.sleep(_POLL_S)
                self._collect(running, outcomes, on_event)
                if time.monotonic() >= next_progress:
                    next_progress = time.monotonic() + _PROGRESS_S
                    for item in running:
                        if moved := item.job.progress():
                            on_event(Event("progress", item.job, *moved))
        finally:
            self._stop(running, outcomes, on_event)
        return [outcomes.get(job.key, Outcome(job.key, "stopped", "not begun")) for job in jobs]

    def _start_what_fits(self, waiting: list[Job], running: list[_Running], on_event: Callable[[Event], None]) -> None:
        while waiting:
            used = sum(min(item.job.threads, self._workers) for item in running)
            if running and used + min(waiting[0].threads, self._workers) > self._workers:
                return
            job = waiting.pop(0)
            running.append(_start(job))
            on_event(Event("start", job))

    def _collect(
        self, running: list[_Running], outcomes: dict[str, Outcome], on_event: Callable[[Event], None]
    ) -> None:
        for item in list(running):
            code = item.process.poll()
            if code is None:
                continue
            running.remove(item)
            item.log.close()
            outcomes[item.job.key] = outcome = _outcome(item.job, code)
            on_event(Event("end", item.job, outcome=outcome))

    def _stop(self, running: list[_Running], outcomes: dict[str, Outcome], on_event: Callable[[Event], None]) -> None:
        for item in running:
            with suppress(ProcessLookupError):
                item.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + _GRACE_S
        while running and time.monotonic() < deadline:
            self._collect(running, outcomes, on_event)
            time.sleep(_POLL_S / 5)
        for item in running:
            item.process.kill()
            item.process.wait()
        self._collect(running, outcomes, on_event)


def _start(job: Job) -> _Running:
    with storage_errors(job.log):
        job.log.parent.mkdir(parents=True, exist_ok=True)
        log = job.log.open("ab")
    threads = str(job.threads)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
        PARENT_VARIABLE: str(os.getpid()),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "optaware", *job.arguments],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=environment,
        start_new_session=True,  # Ctrl-C reaches the driver only, which stops its workers in order
    )
    return _Running(job, process, log)


def _outcome(job: Job, code: int) -> Outcome:
    if code == 0:
        return Outcome(job.key, "done")
    detail = _last_lines(job)
    if code == 3:
        return Outcome(job.key, "stopped", detail)
    if code < 0:
        detail = f"killed by {signal.Signals(-code).name}; {detail}"
    return Outcome(job.key, "failed", detail or f"exit code {code}, see {job.log}")


def _last_lines(job: Job, limit: int = 2000) -> str:
    with suppress(OSError), job.log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - limit))
        return file.read().decode("utf-8", "replace").strip().rsplit("\n\n", 1)[-1]
    return ""
