"""The disk as a program sees it, under control: every change counted, refused, broken off, or written down.

`_disk.c` is built with the system's C compiler and loaded before libc (`preload` starts this program again with it).
`Disk` works out what a disk may hold after the power went: what was synced is there; of what was not, any part.
"""

from __future__ import annotations

import ctypes
import errno
import os
import random
import re
import struct
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

__all__ = ["Change", "Disk", "arm", "build", "changes_so_far", "jump_clock", "preload", "read_changes"]

_SOURCE = Path(__file__).with_name("_disk.c")
_MODES = {"off": 0, "kill": 1, "full": 2, "log": 3, "count": 4}
_HEAD = struct.Struct("<cHHqI")


def build(folder: Path) -> Path:
    """Compile the shim into a folder; its path."""
    library = folder / "disk.so"
    folder.mkdir(parents=True, exist_ok=True)
    command = ["cc", "-O1", "-shared", "-fPIC", "-o", str(library), str(_SOURCE), "-ldl", "-lpthread"]
    subprocess.run(command, check=True)
    return library


def preload(folder: Path) -> None:
    """Go on as the same program with the shim before libc; returns at once when it is there.

    Args:
        folder: Where the shim is built.
    """
    library = folder / "disk.so"
    if os.environ.get("LD_PRELOAD") == str(library):
        return
    build(folder)
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "LD_PRELOAD": str(library)})


def arm(
    folder: Path,
    mode: Literal["off", "kill", "full", "log", "count"],
    at: int = 0,
    *,
    log: int = -1,
    code: int = errno.ENOSPC,
    once: bool = False,
) -> None:
    """From now on, in this process: count, break off or refuse changes below `folder`.

    Args:
        folder: Absolute path.
        mode: `kill`: die at change `at`, in the middle of it; `full`: refuse it; `log`: write all down; `count`.
        at: Number of the change, from 1.
        log: File descriptor for `log`.
        code: Error number of `full`.
        once: Refuse only this one; otherwise all that follow too.
    """
    ctypes.CDLL(None).torture_arm(str(folder).encode(), _MODES[mode], ctypes.c_long(at), log, code, int(once))


def changes_so_far() -> int:
    """How many changes were counted since `arm`."""
    count = ctypes.CDLL(None).torture_count
    count.restype = ctypes.c_long
    return int(count())


def jump_clock(seed: int) -> None:
    """From now on, in this process, the time of day jumps by up to six hours, back and forth."""
    ctypes.CDLL(None).torture_clock(ctypes.c_uint(seed))


@dataclass(frozen=True)
class Change:
    """One change: write, truncate, create, rename, link, unlink, mkdir, rmdir or sync, by its first letter (`s`: sync,
    `d`: rmdir)."""

    kind: str
    path: str
    other: str
    offset: int
    data: bytes


def read_changes(log: Path) -> list[Change]:
    """What `log` wrote down, in order."""
    raw, place, found = log.read_bytes(), 0, []
    while place < len(raw):
        kind, one, two, offset, size = _HEAD.unpack_from(raw, place)
        place += _HEAD.size
        path, other, data = raw[place : place + one], raw[place + one :][:two], raw[place + one + two :][:size]
        place += one + two + size
        found.append(Change(kind.decode(), os.fsdecode(path), os.fsdecode(other), offset, data))
    return found


@dataclass
class _File:
    changes: list[tuple[str, int, bytes]] = field(default_factory=list)
    synced: int = 0


@dataclass
class _Folder:
    live: dict[str, _File | _Folder] = field(default_factory=dict)
    changes: list[tuple[str, str, _File | _Folder | None]] = field(default_factory=list)
    """`(gone, name, node)`: `name` is `node` from now on, and the name `gone` goes away with the same step."""
    synced: int = 0


class Disk:
    """What has reached the disk and what has not, change after change.

    Entries of a folder outlast the power when the folder was synced after the change, bytes of a file when the file
    was; this is less than usual file systems promise.

    Args:
        root: The folder that the changes lie below.
    """

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._top = _Folder()

    def _find(self, path: str) -> tuple[_Folder, str] | None:
        parts = path[len(self._root) :].strip("/").split("/")
        folder = self._top
        for part in parts[:-1]:
            child = folder.live.get(part)
            if not isinstance(child, _Folder):
                return None
            folder = child
        return folder, parts[-1]

    def _enter(self, folder: _Folder, name: str, node: _File | _Folder | None, gone: str = "") -> None:
        folder.changes.append((gone, name, node))
        for old in filter(None, (gone,)):
            folder.live.pop(old, None)
        if node is None:
            folder.live.pop(name, None)
        else:
            folder.live[name] = node

    def _unseen_rename(self, folder: _Folder, name: str, kind: str) -> _File | _Folder | None:
        """safetensors renames its own temporary file by a system call of its own, past libc."""
        hidden = [each for each in folder.live if re.fullmatch(r"\.tmp[A-Za-z0-9]{6}", each)]
        if kind not in "sr" or not hidden:
            return None
        self._enter(folder, name, folder.live[hidden[-1]], gone=hidden[-1])
        return folder.live[name]

    def apply(self, change: Change) -> None:
        """Take one change in."""
        if change.path.rstrip("/") == self._root:
            if change.kind == "s":
                self._top.synced = len(self._top.changes)
            return
        place = self._find(change.path)
        if place is None:
            return  # a file that was unlinked while it was open
        folder, name = place
        node = folder.live.get(name) or self._unseen_rename(folder, name, change.kind)
        if change.kind in "cm":
            self._enter(folder, name, _File() if change.kind == "c" else _Folder())
        elif change.kind in "ud":
            self._enter(folder, name, None)
        elif change.kind in "wt" and isinstance(node, _File):
            node.changes.append((change.kind, change.offset, change.data))
        elif change.kind == "s" and node is not None:
            node.synced = len(node.changes)
        elif change.kind in "rl" and node is not None:
            to = self._find(change.other)
            assert to is not None, change
            if change.kind == "r" and to[0] is folder:
                self._enter(folder, to[1], node, gone=name)
            else:
                self._enter(*to, node)
                if change.kind == "r":
                    self._enter(folder, name, None)

    def write(self, to: Path, draw: random.Random, kept: Literal["all", "none", "some"]) -> None:
        """Make the folder as it may be found when the power is back.

        Args:
            to: The folder, which does not exist.
            draw: Decides what of the changes that were not synced is there.
            kept: `none`: nothing of them; `all`: everything, as after a mere kill; `some`: of every folder's entries
                and every file's bytes the first so many, drawn at random.
        """
        to.mkdir(parents=True)
        self._put(self._top, to, draw, kept)

    def _put(self, folder: _Folder, to: Path, draw: random.Random, kept: str) -> None:
        for name, node in self._entries(folder, draw, kept).items():
            if isinstance(node, _Folder):
                (to / name).mkdir()
                self._put(node, to / name, draw, kept)
            else:
                (to / name).write_bytes(self._bytes(node, draw, kept))

    @staticmethod
    def _many(synced: int, total: int, draw: random.Random, kept: str) -> int:
        return {"all": total, "none": synced}.get(kept) if kept != "some" else draw.randint(synced, total)  # type: ignore[return-value]

    def _entries(self, folder: _Folder, draw: random.Random, kept: str) -> dict[str, _File | _Folder]:
        found: dict[str, _File | _Folder] = {}
        for gone, name, node in folder.changes[: self._many(folder.synced, len(folder.changes), draw, kept)]:
            if gone:
                found.pop(gone, None)
            if node is None:
                found.pop(name, None)
            else:
                found[name] = node
        return found

    def _bytes(self, file: _File, draw: random.Random, kept: str) -> bytes:
        count = self._many(file.synced, len(file.changes), draw, kept)
        data = bytearray()
        for number, (kind, offset, new) in enumerate(file.changes[:count]):
            if kind == "t":
                del data[offset:]
                data.extend(bytes(max(0, offset - len(data))))
                continue
            if kept == "some" and number == count - 1 and number >= file.synced:
                new = new[: draw.randint(0, len(new))]  # the last write may be there in part
            data.extend(bytes(max(0, offset - len(data))))
            data[offset : offset + len(new)] = new
        return bytes(data)
