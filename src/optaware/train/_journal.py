"""journal.bin: what a forward-only run did, in four bytes a probe.

Seeds follow from the run's seed and the step, and the learning rate is constant, so a probe's record is its float32
coefficient g alone; NaN marks one that was skipped. With the base weights and the spec this is the whole run.

Layout, little-endian: the header `HEADER`, then one float32 per probe, `queries` of them per step, from step 1.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from optaware._io import storage_errors
from optaware.errors import IntegrityError, Problem

__all__ = ["Journal", "JournalHeader", "read_journal"]

MAGIC = b"OAWJRNL\0"
VERSION = 1
HEADER = struct.Struct("<8sHHIqdd32s32s")
"""Magic, version, size of the header, queries, run seed, lr, eps, spec fingerprint, SHA-256 of the base weights."""


@dataclass(frozen=True)
class JournalHeader:
    """What a journal belongs to.

    Attributes:
        spec: Fingerprint of the run's spec, 64 hexadecimal digits.
        base: SHA-256 of the base weights, 64 hexadecimal digits; zeros when it is not known.
        seed: The run's seed, which the seed of every probe is derived from.
        queries: Probes per step.
        lr: Learning rate.
        eps: Perturbation scale.
    """

    spec: str
    base: str
    seed: int
    queries: int
    lr: float
    eps: float

    def pack(self) -> bytes:
        """The header's bytes."""
        hashes = bytes.fromhex(self.spec), bytes.fromhex(self.base)
        return HEADER.pack(MAGIC, VERSION, HEADER.size, self.queries, self.seed, self.lr, self.eps, *hashes)

    @classmethod
    def unpack(cls, data: bytes, path: Path) -> JournalHeader:
        """Read the header's bytes.

        Raises:
            IntegrityError: They are not a journal's, or of a version that this release does not know.
        """
        if len(data) < HEADER.size or data[: len(MAGIC)] != MAGIC:
            raise _unreadable(path, "it does not begin as a journal does")
        _, version, size, queries, seed, lr, eps, spec, base = HEADER.unpack(data)
        if version != VERSION or size != HEADER.size:
            raise _unreadable(path, f"its version is {version}, this release reads version {VERSION}")
        return cls(spec.hex(), base.hex(), seed, queries, lr, eps)


def _unreadable(path: Path, why: str) -> IntegrityError:
    advice = "Delete the run's folder to run it anew, or use the release that wrote it."
    return IntegrityError(Problem("journal-unreadable", path.name, why, advice, str(path)))


def read_journal(path: Path) -> tuple[JournalHeader, list[tuple[float, ...]]]:
    """The header and the coefficients of each complete step; a step torn by a kill is left out.

    Raises:
        IntegrityError: The file is not a journal of this version.
        StorageError: It cannot be read.
    """
    with storage_errors(path):
        data = path.read_bytes()
    header = JournalHeader.unpack(data[: HEADER.size], path)
    body = data[HEADER.size :]
    steps = len(body) // (4 * header.queries)
    values = struct.unpack(f"<{steps * header.queries}f", body[: steps * header.queries * 4])
    return header, [values[at : at + header.queries] for at in range(0, len(values), header.queries)]


class Journal:
    """Appends to a run's journal.

    Each step is one unbuffered write; nothing is synced, because a resumed run goes on from its checkpoint.

    Args:
        path: The file.
        header: What it belongs to.
        steps: Steps to keep of a journal that is already there; what follows them is cut off, torn or not.

    Raises:
        IntegrityError: The file belongs to something else, or holds fewer steps.
    """

    def __init__(self, path: Path, header: JournalHeader, steps: int) -> None:
        self._path = path
        self._queries = header.queries
        with storage_errors(path):
            self._file: BinaryIO = path.open("r+b" if steps else "wb", buffering=0)
            try:
                if steps:
                    self._keep(header, steps)
                else:
                    self._file.write(header.pack())
            except BaseException:
                self._file.close()
                raise

    def _keep(self, header: JournalHeader, steps: int) -> None:
        end = HEADER.size + 4 * header.queries * steps
        if JournalHeader.unpack(self._file.read(HEADER.size), self._path) != header:
            raise _unreadable(self._path, "it belongs to another spec or to other base weights")
        if self._file.seek(0, os.SEEK_END) < end:
            raise _unreadable(self._path, f"it holds fewer than the {steps} steps of the checkpoint beside it")
        self._file.truncate(end)
        self._file.seek(end)

    def append(self, coefficients: tuple[float, ...]) -> None:
        """Write the coefficients of the next step."""
        values = (value if math.isfinite(value) else math.nan for value in coefficients)
        with storage_errors(self._path):
            self._file.write(struct.pack(f"<{self._queries}f", *values))

    def close(self) -> None:
        """Close the file."""
        self._file.close()
