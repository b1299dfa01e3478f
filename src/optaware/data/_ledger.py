"""Replies as they come in, appended to JSONL files, so that a stopped corpus goes on where it stopped."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from optaware._io import JsonlAppender, read_jsonl, storage_errors, write_bytes
from optaware.records import Candidate, JudgeReason, RowMeasure, Verdict, parse_record

__all__ = ["FINAL_CODES", "Ledger", "is_transient"]

R = TypeVar("R", Candidate, Verdict, JudgeReason, RowMeasure)

FINAL_CODES = frozenset(
    {"refusal", "empty-reply", "bad-request", "http-400", "http-413", "http-422", "prompt-too-long"}
)
"""Error codes of a row's own making: asking again would give the same. All other errors are asked again."""

_NOWHERE = -1


def is_transient(record: Candidate | Verdict | JudgeReason) -> bool:
    """Whether the record holds an error that a later call may not meet."""
    return record.error is not None and record.error.split(":", 1)[0] not in FINAL_CODES


class Ledger(Generic[R]):
    """The records of one JSONL file by slot; a later record of a slot stands for the earlier one.

    Records stay on disk. Memory holds nine bytes a slot: where its record begins, and what it amounts to. A kill loses
    at most the line being written; a power loss what was written in the last `sync_every_s` seconds (replies lie in
    the reply cache too, so they are not paid for again).

    Args:
        path: The file; it is made, or its torn last line is cut off.
        record: Class of the records.
        slots: How many slots there are.
        slot: The slot of a record; None: it does not belong to this corpus and is left out.
        grade: What a record amounts to, from 1 to 255; see `grades`.
        sync_every_s: Longest time between two fsyncs while records come in.

    Attributes:
        grades: Grade of every slot's record; 0 where there is none.
    """

    def __init__(
        self,
        path: Path,
        record: type[R],
        *,
        slots: int,
        slot: Callable[[R], int | None],
        grade: Callable[[R], int],
        sync_every_s: float = 1.0,
    ) -> None:
        self.path = path
        self._record: type[R] = record
        self._slot: Callable[[R], int | None] = slot
        self._grade: Callable[[R], int] = grade
        self._sync_every_s, self._synced_at = sync_every_s, time.monotonic()
        self._starts = np.full(slots, _NOWHERE, dtype=np.int64)
        self.grades = np.zeros(slots, dtype=np.uint8)
        self._paid_before: list[tuple[int, int]] = []
        self._appender = JsonlAppender(path, sync=False)  # cuts a torn tail, so it comes before reading
        with storage_errors(path):
            self._reader = path.open("rb")
        self._load()

    def __enter__(self) -> Ledger[R]:
        return self

    def __exit__(self, *_: object) -> None:
        self._appender.sync()
        self._appender.close()
        self._reader.close()

    def _load(self) -> None:
        start = 0
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    try:
                        row = json.loads(line)
                    except (ValueError, RecursionError):
                        read_jsonl(self.path)  # names every malformed line
                        raise
                    self._note(parse_record(self._record, row, f"{self.path}: row {number}"), start)
                start += len(line)

    def _note(self, record: R, start: int) -> None:
        slot = self._slot(record)
        if slot is None:
            return
        before = int(self._starts[slot])
        if before != _NOWHERE and _tokens(self._read(before)):
            self._paid_before.append((slot, before))
        self._starts[slot] = start
        self.grades[slot] = self._grade(record)

    def _read(self, start: int) -> R:
        with storage_errors(self.path):
            self._reader.seek(start)
            line = self._reader.readline()
        return parse_record(self._record, json.loads(line), f"{self.path}: byte {start}")

    def add(self, record: R) -> None:
        """Append a record; when this returns, it survives the end of this process."""
        start, _ = self._appender.append(record.to_json())
        self._note(record, start)
        if time.monotonic() - self._synced_at >= self._sync_every_s:
            self._appender.sync()
            self._synced_at = time.monotonic()

    def get(self, slot: int) -> R | None:
        """The last record of a slot, read from the file."""
        start = int(self._starts[slot])
        return None if start == _NOWHERE else self._read(start)

    def paid(self) -> Iterator[R]:
        """All records of this corpus, and those that were replaced although tokens had been paid for them."""
        for start in self._order():
            yield self._read(start)

    def _order(self) -> Iterator[int]:
        """Places of all that is kept, by slot; of one slot the replaced records come first."""
        replaced: dict[int, list[int]] = {}
        for slot, start in self._paid_before:
            replaced.setdefault(slot, []).append(start)
        for place in np.flatnonzero(self._starts != _NOWHERE):
            yield from replaced.get(int(place), ())
            yield int(self._starts[place])

    def rewrite(self) -> None:
        """Write the file anew in the order of the slots; what was replaced stays only where tokens were paid for it."""

        def lines() -> Iterator[bytes]:
            for start in self._order():
                self._reader.seek(start)
                yield self._reader.readline()

        os.fsync(self._reader.fileno())
        write_bytes(self.path, lines())


def _tokens(record: Candidate | Verdict | JudgeReason | RowMeasure) -> int:
    if isinstance(record, RowMeasure):
        return 0
    return record.usage.prompt_tokens + record.usage.completion_tokens
