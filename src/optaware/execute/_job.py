from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

__all__ = ["Event", "Executor", "Job", "Outcome"]

PARENT_VARIABLE = "OPTAWARE_PARENT_PID"
"""Set for worker processes: a worker whose parent is no longer this process stops and keeps what it has."""


@dataclass(frozen=True)
class Job:
    """One piece of work that any backend can do: a command line over a spec file.

    Attributes:
        key: The id of the run or corpus.
        title: What to call it on screen.
        arguments: Arguments after `optaware`; the same for every backend.
        log: Where a worker process writes what it prints.
        threads: CPU threads that the job uses; two jobs never share one.
        timeout_s: Seconds after which a worker process is stopped and the job failed; None: never. The in-process
            backend cannot break off its own code and leaves this to the command.
        prepare: Called once right before the job begins, in the driver; it writes the files that the command reads. A
            study of many runs thus starts at once. What it raises ends the executor, as a full disk would end every
            job.
        progress: Steps done, steps in all and which part of the job they are of, read from the job's files; None when
            it cannot tell.
    """

    key: str
    title: str
    arguments: tuple[str, ...]
    log: Path
    threads: int = 1
    timeout_s: float | None = None
    prepare: Callable[[], None] = lambda: None
    progress: Callable[[], tuple[int, int, str] | None] = lambda: None


@dataclass(frozen=True)
class Outcome:
    """How a job ended: `stopped` means that the same command goes on with it."""

    key: str
    state: Literal["done", "failed", "stopped"]
    detail: str = ""


@dataclass(frozen=True)
class Event:
    """Something to show: a job began, moved or ended, its worker died and it begins again (`retry`), or it found no
    memory beside others and waits until fewer run (`later`)."""

    kind: Literal["start", "progress", "retry", "later", "end"]
    job: Job
    done: int = 0
    total: int = 0
    part: str = ""
    outcome: Outcome | None = None


class Executor(Protocol):
    """Runs jobs and reports how each one ended; never raises for a job that fails."""

    def run(self, jobs: Sequence[Job], on_event: Callable[[Event], None]) -> list[Outcome]:
        """Run all jobs.

        Returns:
            One outcome per job, in the order given. After a stop, jobs that were not begun are `stopped`.
        """
        ...
