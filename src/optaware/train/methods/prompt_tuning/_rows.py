"""Few-shot rows: K for training and as many for fitness of each label, and test rows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from optaware.errors import InputError, ProblemList
from optaware.models import EncodedExample, encode
from optaware.records import DataSource, Example, FewShot
from optaware.tasks import Task, get_task, load_rows
from optaware.train._seeds import derive_seed, generator

__all__ = ["FewShotRows", "draw"]


@dataclass(frozen=True)
class FewShotRows:
    """Encoded rows of a few-shot set.

    Attributes:
        task: The task.
        train: K rows of each label.
        fitness: Rows of each label that candidates are compared on.
        test: Test rows.
        source: Where they came from.
        description: What the task is, for the proposer: the rows' own definition where they have one.
    """

    task: Task
    train: list[EncodedExample]
    fitness: list[EncodedExample]
    test: list[EncodedExample]
    source: DataSource
    description: str


def draw(data: FewShot, seed: int, tokenizer: Any, max_length: int, data_dir: Path | None) -> FewShotRows:
    """Draw the rows of a few-shot set and encode them.

    Raises:
        InputError: The task cannot be used, or has too few rows of a label (all labels at once).
    """
    task = get_task(data.task)
    if data.task_sha256 not in (None, task.sha256):
        raise InputError.of(
            "task-changed", data.task, "the task is not the one that the spec was made from", "Plan again."
        )
    pool, other = load_rows(task, "train", data_dir=data_dir), load_rows(task, "test", data_dir=data_dir)
    own = seed if data.vary else 0
    order = _shuffled(list(pool.examples), derive_seed(data.split_seed, "few-shot", own))
    by_label: dict[int, list[Example]] = {}
    for example in order:
        by_label.setdefault(example.label, []).append(example)
    train, fitness = [], []
    problems = ProblemList(task.name)
    need = data.per_class + data.fitness_per_class
    if len(by_label) < 2:
        problems.add("task-one-label", f"{len(by_label)} label", "there is nothing to choose", "Use another task.")
    for label, rows in sorted(by_label.items()):
        if len(rows) < need:
            problems.add(
                "too-few-rows",
                f"{len(rows)} rows of label {label}",
                f"{data.per_class} for training and {data.fitness_per_class} for fitness are asked for",
                "Ask for fewer rows of each label.",
            )
        train += rows[: data.per_class]
        fitness += rows[data.per_class : need]
    problems.raise_if_any()
    taken = {example.id for example in (*train, *fitness)} if other.split == pool.split else set()
    rest = [example for example in other.examples if example.id not in taken]
    test = _shuffled(rest, derive_seed(data.split_seed, "few-shot-test"))[: data.test]

    def encoded(rows: list[Example]) -> list[EncodedExample]:
        return encode([task.render(row, style=data.prompt) for row in rows], tokenizer, max_length)

    return FewShotRows(
        task, encoded(train), encoded(fitness), encoded(test), other.source, _description(task, order[0])
    )


def _description(task: Task, example: Example) -> str:
    own = example.fields.get("definition")
    return own if isinstance(own, str) and own.strip() else task.description


def _shuffled(rows: list[Example], seed: int) -> list[Example]:
    order = torch.randperm(len(rows), generator=generator(seed)).tolist()
    return [rows[index] for index in order]
