from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optaware.errors import InputError
from optaware.execute._job import Event, Job, Outcome
from optaware.execute._remote import run_command
from optaware.execute._worker import GRACE_S, command_line, environment, outcome_of, travelling

__all__ = ["Ray"]

_POLL_S = 0.25


@dataclass
class _Submitted:
    job: Job
    reference: Any
    note: Path
    shown: str = ""


class Ray:
    """Runs jobs on a Ray cluster, or on workers that Ray starts on this machine.

    A Ray task runs the same command line as every backend; what travels is a list of words. A worker that dies is
    replaced by Ray and its job begins again on another one, where it resumes from its checkpoint. The results folder,
    the models and optaware must be reachable under the same paths on every machine.

    Args:
        workers: Places for single-thread jobs (without an address); on a cluster, jobs submitted at once.
        should_stop: Asked several times a second.
        address: Address of a running cluster, or `auto`; None: workers on this machine, for this call only.
        gpus_per_job: Share of a GPU that a job is given; None: the cluster's GPUs divided by `workers`, at most one.
        retries: How often a job begins again whose worker died.
    """

    def __init__(
        self,
        workers: int,
        should_stop: Callable[[], bool],
        *,
        address: str | None = None,
        gpus_per_job: float | None = None,
        retries: int = 2,
    ) -> None:
        self._workers = workers
        self._should_stop = should_stop
        self._address = address
        self._share = gpus_per_job
        self._retries = retries

    def run(self, jobs: Sequence[Job], on_event: Callable[[Event], None]) -> list[Outcome]:
        """Run all jobs (see `Executor.run`).

        Raises:
            InputError: Ray is not installed, or the cluster cannot be reached.
        """
        if not jobs:
            return []
        ray = _ray()
        mine = not ray.is_initialized()
        if mine:
            self._connect(ray)
        try:
            return self._run(ray, jobs, on_event)
        finally:
            if mine:
                ray.shutdown()

    def _connect(self, ray: Any) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
        if self._address is None:
            options |= {"num_cpus": self._workers, "include_dashboard": False}
        else:
            options["address"] = self._address
        try:
            try:
                ray.init(**options)
            except RuntimeError:  # on a busy machine Ray's own services may take longer to start than it waits
                ray.shutdown()
                ray.init(**options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise InputError.of(
                "ray-unreachable",
                self._address or "workers on this machine",
                f"Ray does not start there ({str(error).splitlines()[0] if str(error) else type(error).__name__})",
                "Check the address, or leave it out for workers on this machine.",
            ) from error

    def _run(self, ray: Any, jobs: Sequence[Job], on_event: Callable[[Event], None]) -> list[Outcome]:
        task = ray.remote(run_command)
        gpus = float(ray.cluster_resources().get("GPU", 0.0))
        share = self._share if self._share is not None else min(1.0, gpus / self._workers)
        waiting, outcomes = list(jobs), dict[str, Outcome]()
        running: list[_Submitted] = []
        try:
            while (waiting or running) and not self._should_stop():
                while waiting and len(running) < self._workers:
                    running.append(self._submit(task, waiting.pop(0), share, on_event))
                self._collect(ray, running, outcomes, on_event, _POLL_S)
                for item in running:
                    _show(item, on_event)
        finally:
            cancelled = list(running)
            for item in cancelled:
                ray.cancel(item.reference, force=False)
            deadline = time.monotonic() + GRACE_S
            while running and time.monotonic() < deadline:
                self._collect(ray, running, outcomes, on_event, _POLL_S, stopping=True)
            # Ray calls a task cancelled as soon as it is told to stop; its command may still be writing what it has.
            while any(item.note.exists() for item in cancelled) and time.monotonic() < deadline:
                time.sleep(_POLL_S)
        return [outcomes.get(job.key, Outcome(job.key, "stopped", "not begun")) for job in jobs]

    def _submit(self, task: Any, job: Job, share: float, on_event: Callable[[Event], None]) -> _Submitted:
        job.prepare()
        note = job.log.parent / "ray-worker.txt"
        note.unlink(missing_ok=True)
        reference = task.options(
            num_cpus=min(job.threads, self._workers),
            num_gpus=share,
            max_retries=self._retries,
            name=job.title,
        ).remote(
            command_line(job), {**travelling(), **environment(job.threads)}, str(job.log), job.timeout_s, str(note)
        )
        on_event(Event("start", job))
        return _Submitted(job, reference, note)

    @staticmethod
    def _collect(
        ray: Any,
        running: list[_Submitted],
        outcomes: dict[str, Outcome],
        on_event: Callable[[Event], None],
        wait_s: float,
        *,
        stopping: bool = False,
    ) -> None:
        if not running:
            return
        ready, _ = ray.wait([item.reference for item in running], num_returns=1, timeout=wait_s)
        for item in [item for item in running if item.reference in ready]:
            running.remove(item)
            outcomes[item.job.key] = outcome = _outcome(ray, item, stopping)
            on_event(Event("end", item.job, outcome=outcome))


def _show(item: _Submitted, on_event: Callable[[Event], None]) -> None:
    worker = item.note.read_text("utf-8") if item.note.exists() else ""
    if item.shown and worker and worker != item.shown:
        on_event(Event("retry", item.job))
    item.shown = worker or item.shown
    if moved := item.job.progress():
        on_event(Event("progress", item.job, *moved))


def _outcome(ray: Any, item: _Submitted, stopping: bool) -> Outcome:
    try:
        code, reason = ray.get(item.reference)
    except ray.exceptions.RayError as error:
        # A worker that is cancelled while it starts may die of it: whatever Ray calls that, the stop was asked for.
        cancelled = isinstance(error, ray.exceptions.TaskCancelledError) or "KeyboardInterrupt" in str(error)
        if stopping or cancelled:
            return Outcome(item.job.key, "stopped", "told to stop")
        if isinstance(error, ray.exceptions.RayTaskError):
            return Outcome(item.job.key, "failed", str(error).strip().splitlines()[-1])
        detail = f"its Ray worker died, also when it was tried again ({type(error).__name__})"
        return Outcome(item.job.key, "failed", detail)
    return outcome_of(item.job.key, code, item.job.log, reason)


def _ray() -> Any:
    try:
        import ray
    except ImportError as error:
        raise InputError.of(
            "extra-missing", "executor ray", "Ray is not installed", "Install it: pip install 'optaware[ray]'."
        ) from error
    return ray
