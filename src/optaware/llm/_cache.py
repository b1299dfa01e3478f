"""Replies kept by content: append-only JSONL segments, one writer each, never expiring."""

from __future__ import annotations

import json
import logging
import os
import re
import threading
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from optaware._io import JsonlAppender, lock, storage_errors
from optaware.errors import InputError, Problem, StorageError
from optaware.records import ChatReply, parse_record

__all__ = ["ReplyCache"]

logger = logging.getLogger("optaware.llm")

_SEGMENT = re.compile(r"^segment-\d{4}\.jsonl$")
_PREFIX = b'{"id": "'
_ID_END = len(_PREFIX) + 64
_BLOCK = 1 << 22
_MAX_WRITERS = 10_000


class ReplyCache:
    """Finished replies by `request_id`, in `folder/segment-NNNN.jsonl`.

    A process that writes holds a lock on one segment and appends to it, so that processes never share a file; a
    segment that is free again is used on. A kill loses at most the line being written, which the next writer cuts
    off; a power loss loses at most the last `sync_every_s` seconds. What another process writes is seen at the next
    miss. Opening reads the segments once (sequentially) and keeps 32 bytes and a place per reply in memory.

    Args:
        folder: Created at the first `put`.
        sync_every_s: Longest time between two fsyncs while replies come in.
    """

    def __init__(self, folder: Path, *, sync_every_s: float = 1.0) -> None:
        self.folder = Path(folder)
        self._sync_every_s = sync_every_s
        self._synced_at = 0.0
        self._index: dict[bytes, tuple[int, int, int]] = {}
        self._readers: dict[str, int] = {}
        self._read_to: dict[int, int] = {}
        self._verify = False
        self._writer: JsonlAppender | None = None
        self._held = ExitStack()
        self._thread = threading.RLock()
        self._refresh()

    def __len__(self) -> int:
        return len(self._index)

    def get(self, request_id: str) -> ChatReply | None:
        """The reply kept under `request_id`, or None."""
        name = bytes.fromhex(request_id)
        with self._thread:
            if name not in self._index:
                self._refresh()
            if name not in self._index:
                return None
            try:
                return self._load(name)
            except (InputError, ValueError, KeyError, TypeError, RecursionError) as error:
                logger.warning("%s: damaged lines are left out and asked for again (%s)", self.folder, error)
            # From now on every line is parsed before it is trusted; another copy may lie in another segment.
            self._verify = True
            self._index.clear()
            self._read_to.clear()
            self._refresh()
            return self._load(name) if name in self._index else None

    def _load(self, name: bytes) -> ChatReply:
        handle, start, length = self._index[name]
        reply = _parse(os.pread(handle, length, start), str(self.folder))
        if reply.request_id != name.hex():
            raise ValueError("a reply is filed under another request")
        return reply

    def put(self, reply: ChatReply) -> None:
        """Keep a finished reply under its `request_id`, with its `payer`; the first one kept stays."""
        name = bytes.fromhex(reply.request_id)
        with self._thread:
            if name in self._index:
                return
            if self._writer is None:
                self._writer = self._claim()
            kept = reply.model_copy(update={"key": "", "cached": False}).to_json()
            payer = kept.pop("payer")
            # Beside the reply, where versions that know of no payers do not look.
            self._writer.append({"id": reply.request_id, "reply": kept, **({"payer": payer} if payer else {})})
            self._refresh()
            if time.monotonic() - self._synced_at >= self._sync_every_s:
                self.sync()

    def sync(self) -> None:
        """Bring what was put to the disk now."""
        with self._thread:
            if self._writer is not None:
                with storage_errors(self._writer.path):
                    os.fsync(self._readers[self._writer.path.name])
                self._synced_at = time.monotonic()

    def close(self) -> None:
        """Sync, free the segment and close all files; the cache must not be used afterwards."""
        with self._thread:
            try:
                self.sync()
            finally:
                if self._writer is not None:
                    self._writer.close()
                    self._writer = None
                self._held.close()
                for handle in self._readers.values():
                    os.close(handle)
                self._readers.clear()
                self._index.clear()

    def __enter__(self) -> ReplyCache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_readers", None) or getattr(self, "_writer", None):
            with suppress(StorageError):  # nobody could catch it here; whoever has to know calls `close`
                self.close()

    def _claim(self) -> JsonlAppender:
        for number in range(_MAX_WRITERS):
            path = self.folder / f"segment-{number:04d}.jsonl"
            stack = ExitStack()
            if stack.enter_context(lock(path.with_suffix(".lock"), wait=False)):
                self._held = stack
                return JsonlAppender(path, sync=False)
            stack.close()
        raise StorageError(
            Problem(
                "cache-busy",
                str(self.folder),
                f"{_MAX_WRITERS} processes write to it at once",
                "Give this run another cache folder.",
            )
        )

    def _refresh(self) -> None:
        """Index the complete lines that were written since the last look."""
        try:
            with os.scandir(self.folder) as entries:
                found = [(entry.name, entry.stat().st_size) for entry in entries if _SEGMENT.match(entry.name)]
        except (FileNotFoundError, NotADirectoryError):
            return  # `put` will create the folder, or say why it cannot
        for name, size in sorted(found):
            if name not in self._readers:
                with storage_errors(self.folder / name):
                    self._readers[name] = os.open(self.folder / name, os.O_RDONLY)
            handle = self._readers[name]
            if size > self._read_to.get(handle, 0):
                self._read_on(handle)

    def _read_on(self, handle: int) -> None:
        at = self._read_to.get(handle, 0)
        size = _BLOCK
        while block := os.pread(handle, size, at):
            end = block.rfind(b"\n") + 1
            if end == 0:
                if len(block) < size:
                    break  # a line that is still being written
                size *= 2
                continue
            start = at
            for line in block[:end].splitlines(keepends=True):
                if line.startswith(_PREFIX) and line[_ID_END : _ID_END + 1] == b'"':
                    self._note(handle, start, line)
                start += len(line)
            at += end
            size = _BLOCK
        self._read_to[handle] = at

    def _note(self, handle: int, start: int, line: bytes) -> None:
        try:
            name = bytes.fromhex(line[len(_PREFIX) : _ID_END].decode("ascii"))
            if self._verify and _parse(line, str(self.folder)).request_id != name.hex():
                return
        except (InputError, ValueError, KeyError, TypeError, RecursionError):
            return
        self._index.setdefault(name, (handle, start, len(line)))


def _parse(line: bytes, where: str) -> ChatReply:
    row = json.loads(line)
    return parse_record(ChatReply, {**row["reply"], "payer": row.get("payer", "")}, where)
