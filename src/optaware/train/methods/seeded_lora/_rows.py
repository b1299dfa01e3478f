"""The rows of a mixture, encoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch

from optaware.errors import InputError, ProblemList
from optaware.models import EncodedExample, encode
from optaware.records import DataSource, Protocol, TaskMixture
from optaware.tasks import Splits, Task, get_task, load_splits
from optaware.train._seeds import derive_seed, generator

__all__ = ["MixtureRows", "shuffle_labels"]

Split = Literal["train", "dev", "test"]


@dataclass
class MixtureRows:
    """Rows by task and split; encoded when first asked for.

    Attributes:
        data: The mixture.
        tokenizer: The model's.
        max_length: Tokens per row; longer prompts are cut from the left.
        data_dir: Folder of task data.
    """

    data: TaskMixture
    tokenizer: Any
    max_length: int
    data_dir: Path | None
    splits: dict[str, Splits] = field(default_factory=dict)
    tasks: dict[str, Task] = field(default_factory=dict)
    _encoded: dict[tuple[str, Split], list[EncodedExample]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = ProblemList()
        for name in (*self.data.tasks, *self.data.held_out):
            with problems.collecting(), _named(name):
                task = self.tasks[name] = get_task(name)
                if self.data.task_sha256.get(name, task.sha256) != task.sha256:
                    problems.add(
                        "task-changed", name, "the task is not the one that the spec was made from", "Plan again."
                    )
                held_out = name in self.data.held_out
                # A held-out task lends no row to training; protocol `free` wants one row a split.
                sizes = (1, 1) if held_out else (self.data.train, max(1, self.data.dev))
                protocol = Protocol(
                    name="free", train=sizes[0], dev=sizes[1], test=self.data.test, seed=self.data.split_seed
                )
                self.splits[name] = load_splits(task, protocol, data_dir=self.data_dir)
        problems.raise_if_any()

    def of(self, task: str, split: Split) -> list[EncodedExample]:
        """Encoded rows of a task's split; training rows are cut to the task's share, an unused dev split is empty."""
        if (key := (task, split)) not in self._encoded:
            rows: Sequence[Any] = getattr(self.splits[task], split)
            if split == "train":
                rows = rows[: max(1, round(self.data.shares.get(task, 1.0) * len(rows)))]
            elif split == "dev" and not self.data.dev:
                rows = []
            style = self.data.prompt if self.data.prompt in self.tasks[task].prompt_styles else "default"
            rendered = [self.tasks[task].render(row, style=style) for row in rows]
            self._encoded[key] = encode(rendered, self.tokenizer, self.max_length)
        return self._encoded[key]

    def pool(self, tasks: Sequence[str], fraction: float, seed: int) -> list[EncodedExample]:
        """A random share of the tasks' training rows, at least one; smaller shares are subsets of larger ones."""
        rows = [row for task in tasks for row in self.of(task, "train")]
        if fraction >= 1:
            return rows
        order = torch.randperm(len(rows), generator=generator(derive_seed(seed, "seed-rows"))).tolist()
        return [rows[index] for index in order[: max(1, round(fraction * len(rows)))]]

    def objective(self, example_id: str) -> Literal["options", "language-model"]:
        """The training objective of the task that a row belongs to."""
        for task in self.tasks.values():
            if example_id.startswith(f"{task.name}/"):
                return task.loss
        raise InputError.of("row-unknown", example_id, "no task of the mixture has it", "Report it.")

    def at_limit(self) -> dict[str, int]:
        """Rows encoded so far whose prompt fills `max_length`: those are cut from the left."""
        counts: dict[str, int] = {}
        for (task, _), rows in self._encoded.items():
            full = sum(len(row.prompt_ids) + max(map(len, row.option_ids)) >= self.max_length for row in rows)
            counts[task] = counts.get(task, 0) + full
        return counts

    def source(self) -> DataSource:
        """Where all rows came from."""
        sources = {name: splits.source for name, splits in self.splits.items()}
        first = next(iter(sources.values()))
        hashes = {f"{name}:{key}": value for name, each in sources.items() for key, value in each.sha256.items()}
        places = dict.fromkeys(str(Path(each.location).parent) for each in sources.values())
        return DataSource(kind=first.kind, location=", ".join(places), sha256=hashes)


@contextmanager
def _named(task: str) -> Iterator[None]:
    """Problems that say no place are those of the task."""
    try:
        yield
    except InputError as error:
        raise InputError(*(replace(each, where=each.where or task) for each in error.problems)) from error


def shuffle_labels(rows: Sequence[EncodedExample], seed: int) -> list[EncodedExample]:
    """The rows with their labels dealt out anew at random: nothing is to be learnt from them but the label counts."""
    order = torch.randperm(len(rows), generator=generator(derive_seed(seed, "shuffled-labels"))).tolist()
    return [replace(row, label=rows[other].label % len(row.option_ids)) for row, other in zip(rows, order, strict=True)]
