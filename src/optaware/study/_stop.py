from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from optaware.execute import PARENT_VARIABLE

__all__ = ["stop_requests"]

_open: list[threading.Event] = []
"""Of the blocks that are open in this process, outermost first: a driver's, and that of a job which runs within it."""


@contextmanager
def stop_requests(after_s: float | None = None) -> Iterator[Callable[[], bool]]:
    """Within the block, SIGINT and SIGTERM ask for a stop instead of raising; yields the question "stop now?".

    A second signal of the same kind acts as it would have without the block, so a hanging step can still be broken off.
    A worker process also stops when the driver that started it is gone.

    Args:
        after_s: Seconds from now after which the answer is yes by itself.
    """
    end = None if after_s is None else time.monotonic() + after_s
    asked = threading.Event()
    parent = os.environ.get(PARENT_VARIABLE)
    previous: dict[signal.Signals, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            os.kill(os.getpid(), number)
        for each in _open:  # whoever runs the job that hears it must not begin the next one
            each.set()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, handle)
        _open.append(asked)

    def stop_now() -> bool:
        orphaned = parent is not None and os.getppid() != int(parent)
        return asked.is_set() or orphaned or (end is not None and time.monotonic() > end)

    try:
        yield stop_now
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        if previous:
            _open.remove(asked)
