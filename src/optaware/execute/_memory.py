from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["available_bytes", "tree_bytes"]

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def available_bytes() -> int:
    """Main memory that new processes can take without swapping; a very large number where it cannot be told."""
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text("ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 1 << 62


def tree_bytes(root: int) -> int:
    """Resident memory of a process and of all that it started, however deep (Linux; elsewhere 0: no guard).

    Pages that several of them share are counted once for each, so the sum errs upwards.
    """
    children: dict[int, list[int]] = {}
    held: dict[int, int] = {}
    with suppress(OSError):
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit():
                with suppress(OSError, ValueError, IndexError):
                    # After the name in brackets: state, parent, group, session, …, resident pages at place 21.
                    fields = (folder / "stat").read_text("utf-8", "replace").rsplit(")", 1)[1].split()
                    children.setdefault(int(fields[1]), []).append(int(folder.name))
                    held[int(folder.name)] = int(fields[21]) * _PAGE
    total, left = 0, [root]
    while left:
        process = left.pop()
        total += held.get(process, 0)
        left += children.get(process, [])
    return total
