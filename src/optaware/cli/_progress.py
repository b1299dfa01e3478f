from __future__ import annotations

import sys
import time
from typing import Any

from optaware.execute import Event

__all__ = ["JobProgress"]

_PLAIN_EVERY_S = 30.0


class JobProgress:
    """Shows jobs as they go: bars with the time left on a terminal, plain lines otherwise."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True)
        self._bars: Any = None
        self._tasks: dict[str, Any] = {}
        self._began: dict[str, float] = {}
        self._next_line: dict[str, float] = {}
        self._part: dict[str, str] = {}
        self._part_began: dict[str, float] = {}

    def __enter__(self) -> JobProgress:
        if self._console.is_terminal:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self._bars = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeRemainingColumn(elapsed_when_finished=True),
                console=self._console,
            )
            self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bars is not None:
            self._bars.stop()

    def say(self, line: str) -> None:
        """Print one line above the bars."""
        if self._bars is not None:
            self._bars.console.print(line, markup=False, highlight=False, soft_wrap=True)
        else:
            print(line, file=sys.stderr, flush=True)

    def __call__(self, event: Event) -> None:
        """Show one event of an executor."""
        key = event.job.key
        if event.kind == "start":
            self._began[key] = time.monotonic()
            self._next_line[key] = time.monotonic() + _PLAIN_EVERY_S
            if self._bars is not None:
                self._tasks[key] = self._bars.add_task(event.job.title, total=None)
            else:
                self.say(f"start  {event.job.title}  [{key}]")
        elif event.kind == "progress":
            self._moved(key, event)
        elif event.kind == "retry":
            self.say(f"again  {event.job.title}  [{key}]  its worker died")
        elif event.kind == "later":
            self.say(f"later  {event.job.title}  [{key}]  no memory beside the others; one fewer at once from now on")
        elif event.outcome is not None:
            self._ended(key, event)

    def _moved(self, key: str, event: Event) -> None:
        part = f" ({event.part})" if event.part else ""
        if self._part.get(key) != event.part:  # each part goes at a speed of its own
            self._part[key], self._part_began[key] = event.part, time.monotonic()
            if self._bars is not None:
                self._bars.reset(self._tasks[key], description=event.job.title + part, total=event.total)
        if self._bars is not None:
            self._bars.update(self._tasks[key], completed=event.done, total=event.total)
        elif 0 < event.done < event.total and time.monotonic() >= self._next_line[key]:
            self._next_line[key] = time.monotonic() + _PLAIN_EVERY_S
            spent = time.monotonic() - self._part_began[key]
            left = spent / event.done * (event.total - event.done)
            self.say(f"  {event.job.title}{part}: {event.done}/{event.total}, about {left:.0f} s left")

    def _ended(self, key: str, event: Event) -> None:
        spent = time.monotonic() - self._began[key]
        if self._bars is not None:
            self._bars.remove_task(self._tasks.pop(key))
        assert event.outcome is not None
        self.say(f"{event.outcome.state:<6} {event.job.title}  [{key}]  {spent:.0f} s")
        if event.outcome.state == "failed":
            self.say(event.outcome.detail)
