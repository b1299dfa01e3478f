from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optaware._io import read_json, write_json
from optaware.errors import InputError, OptawareError
from optaware.execute._job import Event, Job, Outcome
from optaware.execute._worker import GRACE_S, command_line, environment, outcome_of, travelling

__all__ = ["Slurm"]

_POLL_S = 0.5
_NEVER_MIN = 60 * 24 * 365


@dataclass
class _Submitted:
    job: Job
    handle: Any
    exit: Path
    note: Path


class Slurm:
    """Runs jobs through submitit: on a Slurm cluster, or as processes of this machine with `cluster="local"`.

    Each job is the same command line as with every backend, held by submitit's `CommandFunction`. The ids of submitted
    jobs are kept beside their logs, so a driver that was killed and is started again waits for what it had submitted
    instead of submitting it twice. Jobs that end without an exit code, as when their
    machine fails, are submitted again, and resume.

    Args:
        workers: Jobs submitted at once.
        should_stop: Asked several times a second.
        folder: Where submitit writes its files; all machines must see it.
        cluster: `slurm`, or `local` for processes on this machine.
        parameters: Further parameters of submitit's executor (`slurm_partition`, `timeout_min`, `gpus_per_node`, …).
        retries: How often a job is submitted again whose machine failed.
    """

    def __init__(
        self,
        workers: int,
        should_stop: Callable[[], bool],
        *,
        folder: Path,
        cluster: str = "slurm",
        parameters: dict[str, Any] | None = None,
        retries: int = 2,
    ) -> None:
        self._workers = workers
        self._should_stop = should_stop
        self._folder = folder
        self._cluster = cluster
        self._parameters = parameters or {}
        self._retries = retries

    def run(self, jobs: Sequence[Job], on_event: Callable[[Event], None]) -> list[Outcome]:
        """Run all jobs (see `Executor.run`).

        Raises:
            InputError: submitit is not installed, or there is no Slurm here, or it knows no such parameter.
        """
        if not jobs:
            return []
        submitit = _submitit()
        waiting, running = list(jobs), list[_Submitted]()
        outcomes: dict[str, Outcome] = {}
        tries: Counter[str] = Counter()
        try:
            while (waiting or running) and not self._should_stop():
                while waiting and len(running) < self._workers:
                    job = waiting.pop(0)
                    job.prepare()
                    running.append(self._begin(submitit, job, again=tries[job.key] > 0))
                    on_event(Event("retry" if tries[job.key] else "start", job))
                time.sleep(_POLL_S)
                for item in [item for item in running if item.handle.done()]:
                    running.remove(item)
                    if not item.exit.exists() and tries[item.job.key] < self._retries:
                        tries[item.job.key] += 1
                        waiting.insert(0, item.job)
                    else:
                        self._note(item, outcomes, on_event)
                for item in running:
                    if moved := item.job.progress():
                        on_event(Event("progress", item.job, *moved))
        finally:
            self._stop(running, outcomes, on_event)
        return [outcomes.get(job.key, Outcome(job.key, "stopped", "not begun")) for job in jobs]

    def _executor(self, submitit: Any, job: Job) -> Any:
        given: dict[str, Any] = {"name": "optaware", "cpus_per_task": job.threads, **self._parameters}
        if self._cluster == "local":
            given.setdefault("timeout_min", _NEVER_MIN)  # submitit's own default is two minutes
        try:
            executor = submitit.AutoExecutor(folder=self._folder, cluster=self._cluster)
            executor.update_parameters(**given)
        except (RuntimeError, NameError, ValueError, TypeError, AssertionError) as error:
            raise InputError.of(
                "slurm-unusable",
                f"{self._cluster} with {sorted(self._parameters)}",
                str(error).strip().splitlines()[0],
                "Run it where Slurm is, correct the parameters, or take another executor.",
            ) from error
        return executor

    def _begin(self, submitit: Any, job: Job, *, again: bool) -> _Submitted:
        folder = job.log.parent
        ticket, left, note = folder / "slurm-job.json", folder / "slurm-exit.json", folder / "slurm-worker.txt"
        if not again and (found := self._submitted_before(submitit, ticket)):
            return _Submitted(job, found, left, note)
        executor = self._executor(submitit, job)
        left.unlink(missing_ok=True)
        note.unlink(missing_ok=True)
        asked = {
            "command": command_line(job),
            "added": {**travelling(), **environment(job.threads)},
            "log": str(job.log.resolve()),
            "timeout_s": job.timeout_s,
            "exit": str(left.resolve()),
            "note": str(note.resolve()),
        }
        write_json(ticket, asked)
        command = [sys.executable, "-m", "optaware.execute._remote", str(ticket.resolve())]
        handle = executor.submit(submitit.helpers.CommandFunction(command, verbose=False))
        write_json(ticket, {**asked, "job": str(handle.job_id), "folder": str(self._folder), "cluster": self._cluster})
        return _Submitted(job, handle, left, note)

    def _submitted_before(self, submitit: Any, ticket: Path) -> Any:
        """The job that an earlier driver submitted and that has not ended, on a cluster that outlives its driver."""
        if self._cluster != "slurm" or not ticket.exists():
            return None
        with suppress(OptawareError, KeyError, TypeError, AttributeError):
            known = read_json(ticket)
            handle = submitit.SlurmJob(folder=known["folder"], job_id=known["job"])
            return None if handle.done() else handle
        return None

    @staticmethod
    def _note(item: _Submitted, outcomes: dict[str, Outcome], on_event: Callable[[Event], None]) -> None:
        outcomes[item.job.key] = outcome = _outcome(item)
        on_event(Event("end", item.job, outcome=outcome))

    def _stop(self, running: list[_Submitted], outcomes: dict[str, Outcome], on_event: Callable[[Event], None]) -> None:
        for item in running:
            item.handle.cancel(check=False)
            if self._cluster == "local":
                # submitit sends SIGINT, which processes ignore whose driver was started in the background by a script.
                with suppress(OSError, ValueError):
                    os.kill(int(item.note.read_text("utf-8")), signal.SIGTERM)
        deadline = time.monotonic() + GRACE_S
        while running and time.monotonic() < deadline:
            for item in [item for item in running if item.handle.done() and not item.note.exists()]:
                running.remove(item)
                outcomes[item.job.key] = outcome = Outcome(item.job.key, "stopped", "told to stop")
                on_event(Event("end", item.job, outcome=outcome))
            time.sleep(_POLL_S / 5)


def _outcome(item: _Submitted) -> Outcome:
    """How the command ended, by the file that its supervisor wrote; without one, what submitit knows."""
    with suppress(OptawareError, KeyError, TypeError):
        left = read_json(item.exit)
        return outcome_of(item.job.key, int(left["code"]), item.job.log, str(left["reason"]))
    said = (item.handle.stderr() or "").strip().splitlines()
    detail = f"state {item.handle.state}" + (f"; {said[-1]}" if said else "")
    return Outcome(item.job.key, "failed", f"it left no exit code ({detail})")


def _submitit() -> Any:
    try:
        import submitit
    except ImportError as error:
        raise InputError.of(
            "extra-missing",
            "executor slurm",
            "submitit is not installed",
            "Install it: pip install 'optaware[slurm]'.",
        ) from error
    return submitit
