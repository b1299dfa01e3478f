"""journal.bin: what forward-only training did, in four bytes a probe.

Seeds follow from the seed and the step, perturbation scale and number of queries from the method and the step, so a
probe's record is one float32: its coefficient g (for one-point estimates with residual feedback the loss that g follows
from); NaN marks a probe that was skipped. With the base weights this is the whole run. `_journal_header` has what
comes first, `_journal_records` what a step and what lies between steps looks like.
"""

from __future__ import annotations

import errno
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from optaware._io import storage_errors, sync_folder, write_bytes
from optaware.train._journal_header import HEADER_1, MAGIC, OPTIMIZER, JournalHeader, foreign, unreadable
from optaware.train._journal_records import Code, Mark, Place, Rates, Record, Step

__all__ = ["HEADER_1", "MAGIC", "Journal", "JournalHeader", "foreign", "read_journal", "read_records", "set_aside"]


def read_records(path: Path) -> tuple[JournalHeader, list[Record]]:
    """The header and all whole records, with marks where the weights settled; one torn by a kill is left out.

    Raises:
        IntegrityError: The file is not a journal of a known version.
        StorageError: It cannot be read.
    """
    with storage_errors(path):
        data = path.read_bytes()
    header, size = JournalHeader.unpack(data, path)
    records: list[Record] = []
    for record, place, _ in Code(header, path).records(data, size):
        records.append(record)
        if header.version != OPTIMIZER and place.step % header.settle_every == 0:
            records.append(Mark("settled"))
    return header, records


def read_journal(path: Path) -> tuple[JournalHeader, list[tuple[float, ...]]]:
    """The header and the values of each complete step; a step torn by a kill is left out.

    Raises:
        IntegrityError: The file is not a journal of a known version.
        StorageError: It cannot be read.
    """
    header, records = read_records(path)
    return header, [record.kept for record in records if isinstance(record, Step)]


def set_aside(path: Path) -> None:
    """Give a journal that is going to be replaced another name: `journal-1.bin`, or the first number that is free."""
    if not path.exists():
        return
    number = 1
    while (other := path.with_name(f"{path.stem}-{number}{path.suffix}")).exists():
        number += 1
    with storage_errors(path):
        path.rename(other)


class Journal:
    """A journal that grows.

    Each record is one unbuffered write, so a killed process leaves all but the one that was being written; nothing is
    synced, so a machine that stops may lose the last ones.

    A journal that is followed (`Journal.follow`) stands before its first step. What is then appended is compared with
    what is there, and only moves on as long as it is the same; at the first difference the rest is cut off.

    Args:
        path: The file.
        header: What it belongs to.
        steps: Steps to keep of a journal that is already there; what follows them is cut off, torn or not.
        writes: Whether the file is this process's to write; otherwise it is kept in memory alone.

    Raises:
        IntegrityError: The file belongs to something else, or holds fewer steps.
    """

    def __init__(self, path: Path, header: JournalHeader, steps: int, *, writes: bool = True) -> None:
        self._path, self._file = path, None
        if not steps:
            self._stand(header, header.pack(), writes=writes)
            return
        found, data, size = _read(path, header)
        ends = {place.step: end for _, place, end in Code(found, path).records(data, size)}
        if steps not in ends:
            raise unreadable(path, f"it holds fewer than the {steps} steps of the checkpoint beside it")
        self._stand(found, data[: ends[steps]], writes=writes, old=True)

    _file: BinaryIO | None

    @classmethod
    def follow(cls, path: Path, header: JournalHeader, *, writes: bool = True) -> Journal:
        """A journal that is there, from its first step on; a torn tail is cut off.

        Args:
            path: The file.
            header: What it must belong to.
            writes: Whether the file is this process's to write.

        Raises:
            IntegrityError: It belongs to something else.
        """
        journal = cls.__new__(cls)
        journal._path, journal._file = path, None
        found, data, size = _read(path, header)
        end = max((end for _, _, end in Code(found, path).records(data, size)), default=size)
        journal._stand(found, data[:end], writes=writes, old=True)
        journal._at, journal._place = size, Place()
        return journal

    @classmethod
    def restore(cls, path: Path, header: JournalHeader, data: bytes, *, writes: bool = True) -> Journal:
        """The journal as `data` holds it: the file is cut back to it, or written.

        A file that is there and holds something else, neither more nor less of the same, is set aside.

        Raises:
            IntegrityError: `data` belongs to something else.
        """
        journal = cls.__new__(cls)
        journal._path, journal._file = path, None
        found, _ = JournalHeader.unpack(data, path)
        if why := header.difference(found):
            raise foreign(path, why)
        if writes:
            with storage_errors(path):
                there = path.read_bytes() if path.exists() else b""
            if not (there.startswith(data) or data.startswith(there)):
                set_aside(path)
                there = b""
            if not there.startswith(data):
                write_bytes(path, data)
        journal._stand(found, data, writes=writes, old=True)
        return journal

    def _stand(self, header: JournalHeader, data: bytes, *, writes: bool, old: bool = False) -> None:
        """Have the file hold `data`, and stand at its end."""
        self.header = header
        self._code = Code(header, self._path)
        _, self._size = JournalHeader.unpack(data, self._path)
        self._data, self._at = bytearray(data), len(data)
        self._place = Place()
        for _, place, _ in self._code.records(data, self._size):
            self._place = place
        if not writes:
            return
        with storage_errors(self._path):
            self._file = self._path.open("r+b" if old else "wb", buffering=0)
            weakref.finalize(self, self._file.close)  # a loop of somebody else's may just end
            try:
                if old:
                    self._file.truncate(len(data))
                else:
                    self._file.write(data)
                    sync_folder(self._path.parent)  # a checkpoint counts on the journal being there
            except BaseException:
                self._file.close()
                raise

    @property
    def ahead(self) -> bool:
        """Whether there are records that were not come to yet."""
        return self._at < len(self._data)

    @property
    def data(self) -> bytes:
        """The journal up to here."""
        return bytes(self._data[: self._at])

    def holds(self, mark: Mark) -> bool:
        """Whether such a mark is anywhere in it."""
        return any(record == mark for record, _, _ in self._code.records(self._data, self._size))

    def next_step(self, rates: Rates) -> tuple[float, ...] | None:
        """What is kept of the next step, when it is there and was made with these rates.

        None when there is none, or when something else was recorded at this place: the steps that follow then belong to
        other weights than those that are here, and are forgotten at the next record.
        """
        found = self._code.decode(self._place, self._data, self._at) if self.ahead else None
        step = found[0] if found else None
        return step.kept if isinstance(step, Step) and step.rates == rates else None

    def append(self, kept: Sequence[float], rates: Rates = ()) -> None:
        """Write what is kept of the next step, and the rates it is made with where the header does not tell."""
        self._add(Step(tuple(kept), rates))

    def mark(self, mark: Mark) -> None:
        """Write what happened between two steps."""
        self._add(mark)

    def _add(self, record: Record) -> None:
        made, place = self._code.encode(self._place, record)
        end = self._at + len(made)
        if self._data[self._at : end] != made:
            if self._file is not None:
                with storage_errors(self._path):
                    self._file.truncate(self._at)
                    self._file.seek(self._at)
                    if self._file.write(made) != len(made):
                        raise OSError(errno.ENOSPC, "not all of a step could be written")
            self._data[self._at :] = made
        self._at, self._place = end, place

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()


def _read(path: Path, header: JournalHeader) -> tuple[JournalHeader, bytes, int]:
    """Header, bytes and header's size of a journal that must belong to what `header` tells of."""
    with storage_errors(path):
        data = path.read_bytes()
    found, size = JournalHeader.unpack(data, path)
    if why := header.difference(found):
        raise foreign(path, why)
    return found, data, size
