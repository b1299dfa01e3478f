"""journal.bin: what a forward-only run did, in four bytes a probe.

Seeds follow from the run's seed and the step, learning rate, perturbation scale and number of queries from the method
and the step, so a probe's record is one float32: its coefficient g (for one-point estimates with residual feedback the
loss that g follows from); NaN marks a probe that was skipped. With the base weights this is the whole run.

Layout of version 2, little-endian: `PREFIX` (magic, version, size of the header), the header as canonical JSON, then
one float32 per probe, step by step from step 1. Version 1 had a binary header `HEADER_1`. It can be read but not
replayed, since it does not say along which directions the run went.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from optaware._io import canonical_json, storage_errors, sync_folder
from optaware.errors import InputError, IntegrityError, Problem
from optaware.records import Method, ZerothOrderConfig
from optaware.train.schedules import Settings, settings_at

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["Journal", "JournalHeader", "read_journal"]

MAGIC = b"OAWJRNL\0"
VERSION = 2
PREFIX = struct.Struct("<8sHH")
HEADER_1 = struct.Struct("<8sHHIqdd32s32s")
"""Magic, version, size of the header, queries, run seed, lr, eps, spec fingerprint, SHA-256 of the base weights."""


@dataclass(frozen=True)
class JournalHeader:
    """What a journal belongs to, and all that its numbers need to be understood.

    Attributes:
        spec: Fingerprint of the run's spec, 64 hexadecimal digits.
        base: SHA-256 of the base weights, 64 hexadecimal digits; zeros when it is not known.
        seed: The run's seed, which the seed of every probe is derived from.
        method: The method's config as JSON values.
        steps: Updates that the run asks for; schedules go by it.
        settle_every: Steps between evaluations, at which all that was learnt is rounded into the stored weights.
        device: Kind of device that the noise was drawn on (`cpu`, `cuda`).
        platform: Processor, torch version and threads, which rounding can depend on.
        version: Version of the file.
    """

    spec: str
    base: str
    seed: int
    method: dict[str, Any] = field(hash=False)
    steps: int
    settle_every: int
    device: str = "cpu"
    platform: str = ""
    version: int = VERSION

    @property
    def config(self) -> ZerothOrderConfig:
        """The method's config.

        Raises:
            InputError: This release has no such method.
        """
        from pydantic import ValidationError

        try:
            config = _method_adapter().validate_python(self.method)
        except ValidationError as error:
            raise InputError.of(
                "journal-method", str(self.method), str(error), "Use the release that wrote the journal."
            ) from error
        if not isinstance(config, ZerothOrderConfig):
            why = "it is no forward-only method, and only those keep journals"
            raise InputError.of("journal-method", str(self.method), why, "Use the release that wrote the journal.")
        return config

    def settings(self, step: int) -> Settings:
        """Learning rate, perturbation scale and number of queries of one step."""
        return settings_at(self.config, step, self.steps)

    def pack(self) -> bytes:
        """The header's bytes."""
        text = canonical_json({key: value for key, value in asdict(self).items() if key != "version"}).encode("utf-8")
        return PREFIX.pack(MAGIC, VERSION, PREFIX.size + len(text)) + text

    @classmethod
    def unpack(cls, data: bytes, path: Path) -> tuple[JournalHeader, int]:
        """Read a header from the beginning of a journal; returns it and its size in bytes.

        Raises:
            IntegrityError: It is none, or of a version that this release does not know.
        """
        if len(data) < PREFIX.size or data[: len(MAGIC)] != MAGIC:
            raise _unreadable(path, "it does not begin as a journal does")
        _, version, size = PREFIX.unpack(data[: PREFIX.size])
        if version not in (1, VERSION):
            raise _unreadable(path, f"its version is {version}, this release reads versions 1 and {VERSION}")
        if len(data) < size:
            raise _unreadable(path, "it ends within its header")
        if version == 1:
            if len(data) < HEADER_1.size:
                raise _unreadable(path, "it ends within its header")
            *_, queries, seed, lr, eps, spec, base = HEADER_1.unpack(data[: HEADER_1.size])
            method = {"name": "mezo", "queries": queries, "lr": lr, "eps": eps}
            return cls(spec.hex(), base.hex(), seed, method, 0, 1, version=1), size
        try:
            header = cls(**json.loads(data[PREFIX.size : size]))
        except (ValueError, TypeError, RecursionError) as error:
            raise _unreadable(path, "its header is damaged") from error
        texts = (header.spec, header.base, header.device, header.platform)
        numbers = (header.seed, header.steps, header.settle_every)
        if (
            not all(isinstance(text, str) for text in texts)
            or not all(isinstance(number, int) for number in numbers)
            or not isinstance(header.method, dict)
            or min(header.steps, header.settle_every) < 1
        ):
            raise _unreadable(path, "its header is damaged")
        return header, size

    def difference(self, other: JournalHeader) -> str:
        """In which way another header belongs to something else; empty when it does not."""
        if self.version != other.version:
            return f"it has version {other.version}, this run writes version {self.version}"
        named = {"spec": "another spec", "base": "other base weights", "seed": "another seed", "steps": "other steps"}
        named |= {"method": "another method", "settle_every": "another evaluation interval"}
        known = type(self.config)().to_json()  # a journal may be older than some field of the method
        other = replace(other, method={**known, **other.method})
        wrong = [words for key, words in named.items() if getattr(self, key) != getattr(other, key)]
        hashes = [
            f"{key} {getattr(other, key)[:12]}… instead of {getattr(self, key)[:12]}…"
            for key in ("spec", "base")
            if getattr(self, key) != getattr(other, key)
        ]
        return f"it belongs to {' and '.join(wrong)}" + (f" ({', '.join(hashes)})" if hashes else "") if wrong else ""


@cache
def _method_adapter() -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(Method)


def _unreadable(path: Path, why: str) -> IntegrityError:
    advice = "Delete the run's folder to run it anew, or use the release that wrote it."
    return IntegrityError(Problem("journal-unreadable", path.name, why, advice, str(path)))


def foreign(path: Path, why: str) -> IntegrityError:
    """The error for a journal that belongs to something else."""
    advice = "Use the model and the spec that it was written with, or delete the run's folder to run it anew."
    return IntegrityError(Problem("journal-foreign", path.name, why, advice, str(path)))


class _Widths:
    """Number of values of each step, from the method's query schedule."""

    def __init__(self, header: JournalHeader) -> None:
        self._config, self._steps = header.config, header.steps
        self._constant = self._config.queries if self._config.query_schedule == "constant" else None

    def at(self, step: int) -> int:
        return self._constant or settings_at(self._config, step, self._steps).queries

    def before(self, steps: int) -> int:
        """Values in the first `steps` steps."""
        return self._constant * steps if self._constant else sum(map(self.at, range(1, steps + 1)))


def read_journal(path: Path) -> tuple[JournalHeader, list[tuple[float, ...]]]:
    """The header and the values of each complete step; a step torn by a kill is left out.

    Raises:
        IntegrityError: The file is not a journal of a known version.
        StorageError: It cannot be read.
    """
    with storage_errors(path):
        data = path.read_bytes()
    header, size = JournalHeader.unpack(data, path)
    count = (len(data) - size) // 4
    values = struct.unpack(f"<{count}f", data[size : size + 4 * count])
    widths = _Widths(header)
    steps: list[tuple[float, ...]] = []
    at = 0
    while at + (width := widths.at(len(steps) + 1)) <= count:
        steps.append(values[at : at + width])
        at += width
    return header, steps


class Journal:
    """Appends to a run's journal.

    Each step is one unbuffered write, so a killed process leaves all steps but the one that was being written; nothing
    is synced, so a machine that stops may lose the last ones.

    Args:
        path: The file.
        header: What it belongs to.
        steps: Steps to keep of a journal that is already there; what follows them is cut off, torn or not.

    Raises:
        IntegrityError: The file belongs to something else, or holds fewer steps.
    """

    def __init__(self, path: Path, header: JournalHeader, steps: int) -> None:
        self._path = path
        with storage_errors(path):
            self._file: BinaryIO = path.open("r+b" if steps else "wb", buffering=0)
            try:
                if steps:
                    self._keep(header, steps)
                else:
                    self._file.write(header.pack())
                    sync_folder(path.parent)  # a checkpoint counts on the journal being there
            except BaseException:
                self._file.close()
                raise

    def _keep(self, header: JournalHeader, steps: int) -> None:
        found, size = JournalHeader.unpack(self._file.read(PREFIX.size + (1 << 16)), self._path)
        if why := header.difference(found):
            raise foreign(self._path, why)
        end = size + 4 * _Widths(header).before(steps)
        if self._file.seek(0, os.SEEK_END) < end:
            raise _unreadable(self._path, f"it holds fewer than the {steps} steps of the checkpoint beside it")
        self._file.truncate(end)
        self._file.seek(end)

    def append(self, kept: Sequence[float]) -> None:
        """Write what is kept of the next step."""
        values = (value if math.isfinite(value) else math.nan for value in kept)
        with storage_errors(self._path):
            self._file.write(struct.pack(f"<{len(kept)}f", *values))

    def close(self) -> None:
        """Close the file."""
        self._file.close()
