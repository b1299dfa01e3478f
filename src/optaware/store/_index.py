"""An index of the runs of a results folder: rebuilt from the folders whenever they are newer, thrown away at will."""

from __future__ import annotations

import json
import os
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

__all__ = ["refresh_index"]

_VERSION = 1
_COLUMNS = 15
"""Entries of a row; one with fewer was written by an earlier release."""
_SCHEMA = """
create table if not exists runs (
    folder text primary key, stamp text not null, row text not null
);
"""


def refresh_index(root: Path) -> list[dict[str, Any]]:
    """A row for every run folder below `root/runs`, by folder name.

    Rows of folders whose status, result and marker are as they were are taken from `root/index.sqlite`; the others are
    read anew. The index holds nothing that the folders do not; where it cannot be written or read it is done without.

    Returns:
        Rows with `run`, `folder`, `state`, `model`, `task`, `method`, `variant`, `seed`, `steps`, `of`,
        `test_accuracy`, `dev_accuracy`, `train_s`, `updated`.
    """
    folder = root / "runs"
    if not folder.is_dir():
        return []
    try:
        return _with_file(root / "index.sqlite", folder)
    except (sqlite3.Error, OSError, ValueError, OverflowError):
        return [_row(Path(entry.path)) for entry in _entries(folder)]


def _with_file(path: Path, folder: Path) -> list[dict[str, Any]]:
    with closing(_open(path)) as database:
        known = {name: (stamp, row) for name, stamp, row in database.execute("select folder, stamp, row from runs")}
        rows, changed = [], []
        entries = _entries(folder)
        for entry in entries:
            stamp = _stamp(entry.path)
            before = known.get(entry.name)
            if before is not None and before[0] == stamp and (kept := _kept(before[1], entry.name)) is not None:
                rows.append(kept)
                continue
            row = _row(Path(entry.path))
            rows.append(row)
            changed.append((entry.name, stamp, json.dumps(row, ensure_ascii=False)))
        gone = known.keys() - {entry.name for entry in entries}
        with database:
            database.executemany("insert or replace into runs values (?, ?, ?)", changed)
            database.executemany("delete from runs where folder = ?", [(name,) for name in gone])
    return rows


def _kept(text: Any, folder: str) -> dict[str, Any] | None:
    """A row as it was kept; None when it is damaged."""
    with suppress(ValueError, TypeError, RecursionError):
        row = json.loads(text)
        return row if isinstance(row, dict) and row.get("folder") == folder and len(row) == _COLUMNS else None
    return None


def _open(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=10.0)
    try:
        (version,) = database.execute("pragma user_version").fetchone()
        if version not in (0, _VERSION):
            database.execute("drop table if exists runs")
        database.executescript(_SCHEMA)
        database.execute(f"pragma user_version = {_VERSION}")
    except sqlite3.DatabaseError:
        database.close()
        raise
    return database


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        return sorted((entry for entry in found if _is_run(entry)), key=lambda entry: entry.name)


def _is_run(entry: os.DirEntry[str]) -> bool:
    name = entry.name
    return (
        len(name) > 13 and name[12] == "-" and all(char in "0123456789abcdef" for char in name[:12]) and entry.is_dir()
    )


def _stamp(path: str) -> str:
    """What changes when a run moves on: DONE ends it; before that, the status file."""
    for name in ("DONE", "status.json", "spec.json"):
        with suppress(OSError):
            found = Path(path, name).stat()
            return f"{name}:{found.st_mtime_ns}:{found.st_size}"
    return ""


def _row(path: Path) -> dict[str, Any]:
    spec, status, result = (_json(path / f"{name}.json") for name in ("spec", "status", "result"))
    done = (path / "DONE").exists()
    data = _inner(spec, "data")
    state = _text(result.get("outcome", "done") if done else status.get("state")) or "planned"
    test, dev = _inner(result, "test"), _inner(result, "dev")
    return {
        "run": path.name[:12],
        "folder": path.name,
        "state": state,
        "model": _text(_inner(spec, "model").get("name")),
        "task": _text(data.get("task") or data.get("kind")),
        "method": _text(_inner(spec, "method").get("name")),
        "variant": _text(data.get("variant")),
        "seed": _number(spec.get("seed")),
        "steps": _number(result.get("steps") if done else status.get("step", 0)),
        "of": _number(_inner(spec, "schedule").get("steps")),
        "test_accuracy": _number(test.get("accuracy")) if done else None,
        "dev_accuracy": _number(dev.get("accuracy")) if done else None,
        "train_s": _number(result.get("train_s")) if done else None,
        "updated": _text(status.get("updated")),
        "detail": _text(status.get("detail") if not done else result.get("detail")),
    }


def _inner(value: dict[str, Any], name: str) -> dict[str, Any]:
    inner = value.get(name)
    return inner if isinstance(inner, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> int | float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _json(path: Path) -> dict[str, Any]:
    """A JSON object; empty when it is not there or not readable, which `runs show` then says."""
    with suppress(OSError, ValueError, RecursionError):
        value = json.loads(path.read_bytes())
        return value if isinstance(value, dict) else {}
    return {}
