from __future__ import annotations

from collections.abc import Callable, Sequence

from optaware.errors import OptawareError
from optaware.execute._job import Event, Job, Outcome

__all__ = ["InProcess"]


class InProcess:
    """Runs jobs one after another in this process; for debugging, and where processes cannot be started.

    Args:
        command: The command line's entry point: takes the arguments, raises on failure.
        should_stop: Asked before each job.
    """

    def __init__(self, command: Callable[[Sequence[str]], None], should_stop: Callable[[], bool]) -> None:
        self._command = command
        self._should_stop = should_stop

    def run(self, jobs: Sequence[Job], on_event: Callable[[Event], None]) -> list[Outcome]:
        """Run all jobs in order (see `Executor.run`)."""
        outcomes = []
        for job in jobs:
            outcome = Outcome(job.key, "stopped", "not begun")
            if not self._should_stop():
                job.prepare()
                on_event(Event("start", job))
                outcome = self._one(job)
                on_event(Event("end", job, outcome=outcome))
            outcomes.append(outcome)
        return outcomes

    def _one(self, job: Job) -> Outcome:
        try:
            self._command(job.arguments)
        except OptawareError as error:
            return Outcome(job.key, "stopped" if error.exit_code == 3 else "failed", str(error))
        except Exception as error:  # a job's own fault must not take the other jobs with it
            return Outcome(job.key, "failed", f"{type(error).__name__}: {error}")
        return Outcome(job.key, "done")
