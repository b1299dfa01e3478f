"""Calibrated judges on disk."""

from __future__ import annotations

from pathlib import Path

from optaware._io import read_json
from optaware.records import JudgeTemplate, parse_record

__all__ = ["read_judge"]


def read_judge(path: Path | str | None) -> JudgeTemplate | None:
    """The judge of a `judge.json`, as `optaware data calibrate` writes it; None when `path` is None.

    Raises:
        InputError: The file is missing or malformed.
    """
    return None if path is None else parse_record(JudgeTemplate, read_json(Path(path)), str(path))
