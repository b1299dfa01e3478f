"""Waiting for child processes to end without asking again and again."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterable

__all__ = ["close_watch", "open_watch", "wait_for_end"]


def open_watch(pid: int) -> int | None:
    """A file descriptor that can be read from once this child has ended; None where the system has none (not Linux, or
    a sandbox forbids it)."""
    if sys.platform != "linux" or not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def close_watch(watch: int | None) -> None:
    """Give the descriptor back."""
    if watch is not None:
        os.close(watch)


def wait_for_end(watches: Iterable[int | None], timeout_s: float) -> bool:
    """Return when one of the watched children has ended (True), and after `timeout_s` at the latest."""
    known = [watch for watch in watches if watch is not None]
    if not known:
        time.sleep(timeout_s)
        return False
    poll = select.poll()  # unlike select() it takes descriptors of any number
    for watch in known:
        poll.register(watch, select.POLLIN)
    return bool(poll.poll(timeout_s * 1000.0))
