"""Rows of a JSONL file with their line numbers, and every fault of the file at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from optaware.errors import InputError, ProblemList
from optaware.records import Example
from optaware.tasks._task import Task

__all__ = ["Numbered", "check_rows", "read_numbered"]

Numbered = list[tuple[int, dict[str, Any]]]
"""Rows, each with the number of its line (from 1)."""


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def read_numbered(path: Path, problems: ProblemList, *, shown: str | None = None) -> Numbered:
    """Read the rows of a JSONL file; lines that are no JSON object are added to `problems`.

    Args:
        path: The file.
        problems: Where faults go.
        shown: How the file is called in errors.
    """
    name = shown or str(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        problems.add("file-unreadable", name, error.strerror or "cannot be read", "Check the path.", name)
        return []
    rows: Numbered = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        where = f"{name}:{number}"
        try:
            row = json.loads(line.decode("utf-8"), parse_constant=_no_constant)
        except (ValueError, RecursionError) as error:
            why = (
                f"not valid JSON ({error.msg}, column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
            )
            why = why or ("not valid UTF-8" if isinstance(error, UnicodeDecodeError) else f"not valid JSON ({error})")
            problems.add("malformed", f"line {number}", why, "Write one JSON object on each line.", where)
            continue
        if not isinstance(row, dict):
            given = f"line {number} holds a {type(row).__name__}"
            problems.add("not-a-row", given, "a row is a JSON object", "Write one JSON object on each line.", where)
            continue
        rows.append((number, row))
    return rows


def check_rows(task: Task, split: str, rows: Numbered, shown: str, problems: ProblemList) -> list[Example]:
    """Make the rows of one file examples of `task`; faults of all rows are added to `problems`.

    A value of the task's id column may occur once in a file.
    """
    examples: list[Example] = []
    seen: dict[str, int] = {}
    for index, (number, row) in enumerate(rows):
        where = f"{shown}:{number}"
        key = row.get(task.id_column) if task.id_column else None
        if key is not None and (first := seen.setdefault(repr(key), number)) != number:
            problems.add(
                "row-id-twice",
                f"{task.id_column} = {key!r}",
                f"line {first} has the same id",
                "Give every row an id of its own, or drop the copy.",
                where,
            )
        try:
            examples.append(task.example(row, split, index, where))
        except InputError as error:
            problems.problems.extend(error.problems)
    return examples
