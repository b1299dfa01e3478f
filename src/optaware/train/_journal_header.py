"""The head of a journal: what it belongs to, and all that its numbers need to be understood.

On disk: `PREFIX` (magic, version, size of the header), then the header as canonical JSON. Version 2 is that of runs,
version 3 that of optimizers in other people's loops; version 1 had a binary header `HEADER_1`. It can be read but not
replayed, since it does not say along which directions the run went.
"""

from __future__ import annotations

import json
import struct
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optaware._io import canonical_json
from optaware.errors import InputError, IntegrityError, Problem
from optaware.records import Method, ZerothOrderConfig
from optaware.train.schedules import Settings, settings_at

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = ["FREE", "HEADER_1", "MAGIC", "OPTIMIZER", "PREFIX", "VERSION", "JournalHeader", "foreign", "unreadable"]

MAGIC = b"OAWJRNL\0"
VERSION, OPTIMIZER = 2, 3
PREFIX = struct.Struct("<8sHH")
HEADER_1 = struct.Struct("<8sHHIqdd32s32s")
"""Magic, version, size of the header, queries, run seed, lr, eps, spec fingerprint, SHA-256 of the base weights."""

_MOST_GROUPS = 1 << 16
"""Parameter groups; a header that tells of more is damaged."""

FREE = frozenset({"lr", "weight_decay", "batching", "fused", "host_residuals"})
"""Fields of a method that may change while the same weights go on under an optimizer: step sizes, which belong to its
groups, and where or how the same numbers are made."""


@dataclass(frozen=True)
class JournalHeader:
    """What a journal belongs to, and all that its numbers need to be understood.

    Attributes:
        spec: Fingerprint of the run's spec, 64 hexadecimal digits; empty for an optimizer.
        base: SHA-256 of the base weights, 64 hexadecimal digits, zeros when it is not known; for an optimizer the
            digest of all parameters of the model before the first step (32 digits).
        seed: The run's seed, which the seed of every probe is derived from.
        method: The method's config as JSON values.
        steps: Updates that the run asks for, which schedules go by; 0: the method has none, and nobody said.
        settle_every: Steps between evaluations, at which all that was learnt is rounded into the stored weights; 0:
            the journal says where.
        device: Kind of device that the noise was drawn on (`cpu`, `cuda`).
        platform: Processor, torch version and threads, which rounding can depend on.
        dtype: Of the weights (`fp32`, `bf16`, `fp16`; empty: another), for whoever loads the model again.
        groups: Of an optimizer: to which parameter group the parameters belong, by name in alphabetical order, as
            runs of (group, number of parameters); −1: not trained.
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
    dtype: str = ""
    groups: tuple[tuple[int, int], ...] = ()
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
        return settings_at(self.config, step, self.steps or 1)

    @property
    def group_count(self) -> int:
        """Parameter groups whose rates the journal holds."""
        return 1 + max((group for group, _ in self.groups), default=-1)

    def pack(self) -> bytes:
        """The header's bytes."""
        left_out = {"version"} if self.version == OPTIMIZER else {"version", "groups", "dtype"}
        fields = {key: value for key, value in asdict(self).items() if key not in left_out}
        text = canonical_json(fields).encode("utf-8")
        return PREFIX.pack(MAGIC, self.version, PREFIX.size + len(text)) + text

    @classmethod
    def unpack(cls, data: bytes, path: Path) -> tuple[JournalHeader, int]:
        """Read a header from the beginning of a journal; returns it and its size in bytes.

        Raises:
            IntegrityError: It is none, or of a version that this release does not know.
        """
        if len(data) < PREFIX.size or data[: len(MAGIC)] != MAGIC:
            raise unreadable(path, "it does not begin as a journal does")
        _, version, size = PREFIX.unpack(data[: PREFIX.size])
        if version not in (1, VERSION, OPTIMIZER):
            raise unreadable(path, f"its version is {version}, this release reads versions 1 to {OPTIMIZER}")
        if len(data) < size:
            raise unreadable(path, "it ends within its header")
        if version == 1:
            if len(data) < HEADER_1.size:
                raise unreadable(path, "it ends within its header")
            *_, queries, seed, lr, eps, spec, base = HEADER_1.unpack(data[: HEADER_1.size])
            method = {"name": "mezo", "queries": queries, "lr": lr, "eps": eps}
            return cls(spec.hex(), base.hex(), seed, method, 0, 1, version=1), size
        try:
            header = cls(**json.loads(data[PREFIX.size : size]), version=version)
            header = replace(header, groups=tuple((group, count) for group, count in header.groups))
        except (ValueError, TypeError, RecursionError) as error:
            raise unreadable(path, "its header is damaged") from error
        if not header._makes_sense():
            raise unreadable(path, "its header is damaged")
        return header, size

    def _makes_sense(self) -> bool:
        texts = (self.spec, self.base, self.device, self.platform, self.dtype)
        numbers = (self.seed, self.steps, self.settle_every, *(each for run in self.groups for each in run))
        if not all(isinstance(text, str) for text in texts) or not isinstance(self.method, dict):
            return False
        if not all(isinstance(number, int) for number in numbers):
            return False
        if self.version == VERSION:
            return min(self.steps, self.settle_every) >= 1 and not self.groups
        found = {group for group, _ in self.groups} - {-1}
        whole = 0 < len(found) <= _MOST_GROUPS and found == set(range(len(found)))
        return whole and self.steps >= 0 and all(count >= 1 for _, count in self.groups)

    def difference(self, other: JournalHeader) -> str:
        """In which way another header belongs to something else; empty when it does not."""
        if self.version != other.version:
            return f"it has version {other.version}, this run writes version {self.version}"
        named = {"spec": "another spec", "base": "other base weights", "seed": "another seed", "steps": "other steps"}
        named |= {"method": "another method", "settle_every": "another evaluation interval"}
        named |= {"groups": "other parameters or parameter groups"}
        mine, other = replace(self, method=self._told(self.method)), replace(other, method=self._told(other.method))
        wrong = [words for key, words in named.items() if getattr(mine, key) != getattr(other, key)]
        hashes = [
            f"{key} {getattr(other, key)[:12]}… instead of {getattr(self, key)[:12]}…"
            for key in ("spec", "base")
            if getattr(self, key) != getattr(other, key)
        ]
        return f"it belongs to {' and '.join(wrong)}" + (f" ({', '.join(hashes)})" if hashes else "") if wrong else ""

    def _told(self, method: dict[str, Any]) -> dict[str, Any]:
        """What must be the same of a method: a journal may be older than some field, and an optimizer's are free."""
        whole = {**type(self.config)().to_json(), **method}
        return whole if self.version == VERSION else {key: each for key, each in whole.items() if key not in FREE}


@cache
def _method_adapter() -> TypeAdapter[Any]:
    from pydantic import TypeAdapter

    return TypeAdapter(Method)


def unreadable(path: Path, why: str) -> IntegrityError:
    """The error for a file that is no whole journal."""
    advice = "Delete the run's folder to run it anew, or use the release that wrote it."
    return IntegrityError(Problem("journal-unreadable", path.name, why, advice, str(path)))


def foreign(path: Path, why: str) -> IntegrityError:
    """The error for a journal that belongs to something else."""
    advice = "Use the model and the spec that it was written with, or delete the run's folder to run it anew."
    return IntegrityError(Problem("journal-foreign", path.name, why, advice, str(path)))
