from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from optaware.execute import PARENT_VARIABLE

__all__ = ["stop_requests"]


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Within the block, SIGINT and SIGTERM ask for a stop instead of raising; yields the question "stop now?".

    A second signal of the same kind acts as it would have without the block, so a hanging step can still be broken off.
    A worker process also stops when the driver that started it is gone.
    """
    asked = threading.Event()
    parent = os.environ.get(PARENT_VARIABLE)
    previous: dict[signal.Signals, Any] = {}

    def handle(number: int, frame: FrameType | None) -> None:
        if asked.is_set():
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
            os.kill(os.getpid(), number)
        asked.set()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, handle)
    try:
        yield lambda: asked.is_set() or (parent is not None and os.getppid() != int(parent))
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
