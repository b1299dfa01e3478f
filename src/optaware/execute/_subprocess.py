from __future__ import annotations

import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO

from optaware.execute._ends import close_watch, open_watch, wait_for_end
from optaware.execute._gpus import visible_gpus
from optaware.execute._job import Event, Job, Outcome
from optaware.execute._memory import available_bytes, tree_bytes
from optaware.execute._worker import (
    GRACE_S,
    NO_ROOM,
    command_line,
    died,
    environment,
    open_log,
    outcome_of,
    signal_group,
    start,
)

__all__ = ["Subprocess"]

_POLL_S = 0.25
"""How often limits, progress and a wish to stop are looked at; the end of a job is noticed at once."""
_PROGRESS_S = 1.0


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    log: IO[bytes]
    gpu: str | None
    began: float
    watch: int | None
    reason: str = ""
    beside: bool = False
    """Whether another job ran on the same device at some time."""
    kill_at: float | None = None


class Subprocess:
    """Runs each job in a process of its own, at most `workers` at a time.

    A job that asks for more than one thread takes as many places as threads, so that the machine is not oversubscribed.
    On a stop, workers get SIGTERM, finish their step, write a checkpoint and leave; after a minute they are killed.
    A job that found no memory on its device beside others begins again after those that wait, and from then on there is
    one place fewer; only a job that found none by itself has failed.

    Args:
        workers: Places for single-thread jobs.
        should_stop: Asked several times a second.
        gpus: GPUs to share out, as `CUDA_VISIBLE_DEVICES` names them; each job sees the one with the fewest jobs. None:
            all that this process sees; empty: every job sees what this process sees.
        memory_limit_bytes: A job whose processes hold more main memory than this is stopped and failed.
        memory_reserve_bytes: While less main memory than this is free, no further job begins (one always runs).
        retries: How often a job begins again whose worker was killed from outside; it resumes from its checkpoint.
    """

    def __init__(
        self,
        workers: int,
        should_stop: Callable[[], bool],
        *,
        gpus: Sequence[str] | None = None,
        memory_limit_bytes: int | None = None,
        memory_reserve_bytes: int = 0,
        retries: int = 1,
    ) -> None:
        self._workers = workers
        self._should_stop = should_stop
        self._gpus = visible_gpus() if gpus is None else tuple(gpus)
        self._limit, self._reserve = memory_limit_bytes, memory_reserve_bytes
        self._retries = retries

    def run(self, jobs: Sequence[Job], on_event: Callable[[Event], None]) -> list[Outcome]:
        """Run all jobs (see `Executor.run`)."""
        waiting = list(jobs)
        running: list[_Running] = []
        outcomes: dict[str, Outcome] = {}
        deaths: Counter[str] = Counter()
        next_progress = 0.0
        try:
            while (waiting or running) and not self._should_stop():
                self._start_what_fits(waiting, running, on_event)
                wait_for_end((item.watch for item in running), _POLL_S)
                self._guard(running)
                for item in self._ended(running):
                    if died(item.process.returncode) and not item.reason and deaths[item.job.key] < self._retries:
                        deaths[item.job.key] += 1
                        waiting.insert(0, item.job)
                        on_event(Event("retry", item.job))
                    elif item.process.returncode == NO_ROOM and item.beside and not item.reason:
                        self._workers = max(1, self._workers - item.job.threads)
                        waiting.append(item.job)
                        on_event(Event("later", item.job))
                    else:
                        self._note(item, outcomes, on_event)
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
            if running and self._reserve and available_bytes() < self._reserve:
                return
            job = waiting.pop(0)
            job.prepare()
            log, gpu = open_log(job.log), self._next_gpu(running)
            process = start(command_line(job), environment(job.threads, gpu), log)
            sharing = [item for item in running if item.gpu == gpu]
            for item in sharing:
                item.beside = True
            watch = open_watch(process.pid)
            running.append(_Running(job, process, log, gpu, time.monotonic(), watch, beside=bool(sharing)))
            on_event(Event("start", job))

    def _next_gpu(self, running: list[_Running]) -> str | None:
        taken = Counter(item.gpu for item in running)
        return min(self._gpus, key=lambda gpu: taken[gpu], default=None)

    def _guard(self, running: list[_Running]) -> None:
        """Stop jobs that take too long or too much memory; kill those that do not obey."""
        now = time.monotonic()
        for item in running:
            if item.kill_at is not None:
                if now >= item.kill_at:
                    signal_group(item.process, signal.SIGKILL)
                continue
            if item.job.timeout_s is not None and now - item.began > item.job.timeout_s:
                item.reason = f"it took longer than {item.job.timeout_s:g} s"
            elif self._limit is not None and (held := tree_bytes(item.process.pid)) > self._limit:
                item.reason = (
                    f"it held {held / 1e9:.2f} GB of memory, more than the limit of {self._limit / 1e9:.2f} GB"
                )
            if item.reason:
                item.kill_at = now + GRACE_S
                signal_group(item.process, signal.SIGTERM)

    @staticmethod
    def _ended(running: list[_Running]) -> list[_Running]:
        ended = [item for item in running if item.process.poll() is not None]
        for item in ended:
            running.remove(item)
            item.log.close()
            close_watch(item.watch)
        return ended

    @staticmethod
    def _note(
        item: _Running, outcomes: dict[str, Outcome], on_event: Callable[[Event], None], *, told: bool = False
    ) -> None:
        outcome = outcome_of(item.job.key, item.process.returncode, item.job.log, item.reason)
        if told and died(item.process.returncode) and not item.reason:
            # Told to stop before it could listen (still starting), or it did not obey in time: no failure of its own.
            outcome = Outcome(item.job.key, "stopped", "ended while it was told to stop")
        outcomes[item.job.key] = outcome
        on_event(Event("end", item.job, outcome=outcome))

    def _stop(self, running: list[_Running], outcomes: dict[str, Outcome], on_event: Callable[[Event], None]) -> None:
        for item in running:
            signal_group(item.process, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        while running and time.monotonic() < deadline:
            for item in self._ended(running):
                self._note(item, outcomes, on_event, told=True)
            time.sleep(_POLL_S / 5)
        for item in running:
            signal_group(item.process, signal.SIGKILL)
            item.process.wait()
        for item in self._ended(running):
            self._note(item, outcomes, on_event, told=True)
