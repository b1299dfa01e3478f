"""Replies as they come in, appended to JSONL files, so that a stopped corpus goes on where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from optaware._io import JsonlAppender, read_jsonl, write_jsonl
from optaware.records import Candidate, Record, Verdict, parse_record

__all__ = ["FINAL_CODES", "Ledger", "is_transient"]

R = TypeVar("R", Candidate, Verdict)
K = TypeVar("K", bound=Hashable)

FINAL_CODES = frozenset({"refusal", "empty-reply", "bad-request", "http-400", "http-413", "http-422"})
"""Error codes of a row's own making: asking again would give the same. All other errors are asked again."""


def is_transient(record: Candidate | Verdict) -> bool:
    """Whether the record holds an error that a later call may not meet."""
    return record.error is not None and record.error.split(":", 1)[0] not in FINAL_CODES


class Ledger(Generic[K, R]):
    """The records of one JSONL file by key; a later record of the same key stands for the earlier one.

    Args:
        path: The file; it is made, or its torn last line is cut off.
        record: Class of the records.
        key: What identifies one.
        wanted: Whether a record found in the file belongs to this corpus; others are left out.
    """

    def __init__(self, path: Path, record: type[R], key: Callable[[R], K], wanted: Callable[[R], bool]) -> None:
        self.path = path
        self._key: Callable[[R], K] = key
        self._appender = JsonlAppender(path)  # cuts a torn tail, so it comes before reading
        found = (
            parse_record(record, row, f"{path}: row {number}") for number, row in enumerate(read_jsonl(path), start=1)
        )
        self._records: dict[K, R] = {key(item): item for item in found if wanted(item)}

    def __enter__(self) -> Ledger[K, R]:
        return self

    def __exit__(self, *_: object) -> None:
        self._appender.close()

    def add(self, record: R) -> None:
        """Append a record; when this returns, it survives a crash."""
        self._appender.append(record.to_json())
        self._records[self._key(record)] = record

    def get(self, key: K) -> R | None:
        """The last record of a key."""
        return self._records.get(key)

    def settled(self, key: K) -> R | None:
        """The last record of a key, unless it is an error that may pass."""
        found = self._records.get(key)
        return None if found is None or is_transient(found) else found

    def values(self) -> Iterator[R]:
        """All records."""
        return iter(self._records.values())

    def rewrite(self, keys: Iterable[K]) -> None:
        """Write the file anew: the records of `keys`, in this order, one each."""
        kept: list[Record] = [self._records[key] for key in keys if key in self._records]
        write_jsonl(self.path, (record.to_json() for record in kept))
