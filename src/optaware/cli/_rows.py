from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from optaware.records import Example
    from optaware.tasks import Task

__all__ = ["rows_of"]


def rows_of(
    task: Task, role: Literal["train", "dev", "test"], protocol: Literal["oat", "mezo"] | None, data_dir: Path | None
) -> tuple[Example, ...]:
    """The rows that a command looks at: those of a protocol, or all of the source's split; says which they are."""
    from optaware.records import Protocol
    from optaware.tasks import load_rows, load_splits

    if protocol is None:
        found = load_rows(task, role, data_dir=data_dir)
        print(f"{task.name}: all {len(found.examples)} rows of {found.split} ({found.source.kind})", file=sys.stderr)
        return found.examples
    splits = load_splits(task, Protocol(name=protocol), data_dir=data_dir)
    chosen = {"train": splits.train, "dev": splits.dev, "test": splits.test}[role]
    print(f"{task.name}: {len(chosen)} {role} rows of protocol {protocol} ({splits.source.kind})", file=sys.stderr)
    return chosen
