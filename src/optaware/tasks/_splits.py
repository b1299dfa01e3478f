"""The rows of a run: which they are, where they came from, and what is doubtful about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from optaware._io import canonical_json
from optaware.records import DataSource, Example, Protocol, Record
from optaware.tasks._protocols import ROLES, Role, choose, source_of
from optaware.tasks._sources import load_pools
from optaware.tasks._task import Task

__all__ = ["Rows", "Splits", "load_rows", "load_splits"]


class Splits(Record):
    """Training, development and test rows.

    The rows of a split keep the id of the source row: a dev row taken from the train split is `task/train/…`.
    """

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    source: DataSource
    protocol: Protocol
    drawn_from: dict[str, str]
    """The source split that each of `train`, `dev` and `test` was taken from."""
    duplicates: dict[str, int]
    """Rows that repeat the fields of an earlier row of the same split."""
    overlap: dict[str, int]
    """Rows of the second split whose fields also occur in the first, by `first/second`. A warning, not an error."""
    notes: tuple[str, ...] = ()
    """What a reader of the results should know."""

    def majority_share(self, split: Literal["train", "dev", "test"]) -> float:
        """Accuracy (0 to 1) of always answering the most frequent label of the split."""
        labels = Counter(example.label for example in getattr(self, split))
        return max(labels.values()) / sum(labels.values())


def load_splits(task: Task, protocol: Protocol, *, data_dir: Path | None = None) -> Splits:
    """Read a task's rows and choose those of a protocol.

    Rows come from the first source that has them: the files that a task file names; `data_dir`, or the folder that
    `OPTAWARE_DATA_DIR` names (`<folder>/<task>/<split>.jsonl`); the hub, when `datasets` is installed and the data set
    is in the local cache or `OPTAWARE_USE_HUB=1`; a packaged asset. All rows of a source are checked, also those that
    the protocol does not use.

    Args:
        task: The task.
        protocol: Which rows (see `choose` in `_protocols.py`).
        data_dir: A folder of data sets; it goes before `OPTAWARE_DATA_DIR`.

    Raises:
        InputError: No source has the rows, rows are wrong (all faults, each with file and line), or the protocol asks
            for splits or rows that are not there.
    """
    pools = load_pools(task, data_dir)
    chosen = choose(task, protocol, {split: len(rows) for split, rows in pools.examples.items()})
    rows = {
        role: tuple(pools.examples[split][number] for number in numbers) for role, (split, numbers) in chosen.items()
    }
    drawn_from = {role: split for role, (split, _) in chosen.items()}
    notes = list(pools.notes)
    if len(set(drawn_from.values())) == 1:
        only = drawn_from["test"]
        notes.append(f"train, dev and test are all cut out of the source's {only} split, without shared rows")
    keys = {role: [_key(task, example) for example in rows[role]] for role in ROLES}
    return Splits(
        train=rows["train"],
        dev=rows["dev"],
        test=rows["test"],
        source=pools.source,
        protocol=protocol,
        drawn_from=dict(drawn_from),
        duplicates={role: len(keys[role]) - len(set(keys[role])) for role in ROLES},
        overlap={f"{a}/{b}": _shared(keys[a], keys[b]) for a, b in combinations(ROLES, 2)},
        notes=tuple(notes),
    )


class Rows(Record):
    """All rows of one source split, without a protocol: to look at, or to score whole."""

    examples: tuple[Example, ...]
    source: DataSource
    split: str
    """The source split that they are."""
    sizes: dict[str, int]
    """Rows of every split that the source has."""


def load_rows(task: Task, role: Role, *, data_dir: Path | None = None) -> Rows:
    """Read all rows of the source split that serves `role`: for `test`, the one that protocols draw test rows from.

    Args:
        task: The task.
        role: `train`, `dev` or `test`. A source with one split only serves all three from it.
        data_dir: As in `load_splits`.

    Raises:
        InputError: No source has the rows, or rows are wrong (all faults, each with file and line).
    """
    pools = load_pools(task, data_dir)
    sizes = {split: len(rows) for split, rows in pools.examples.items()}
    split = source_of(task, sizes)[role]
    return Rows(examples=tuple(pools.examples[split]), source=pools.source, split=split, sizes=sizes)


def _key(task: Task, example: Example) -> str:
    """What makes two rows the same text: the fields apart from the label, without regard to case and spacing."""
    fields: dict[str, Any] = {name: value for name, value in example.fields.items() if name != task.label_field}
    return " ".join(canonical_json(fields).casefold().split())


def _shared(first: Sequence[str], second: Sequence[str]) -> int:
    known = set(first)
    return sum(key in known for key in second)
