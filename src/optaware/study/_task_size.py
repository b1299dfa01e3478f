"""How long a study's rows are, without a tokenizer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from optaware.records import Example
from optaware.study._graph import StudyGraph
from optaware.tasks import Task, get_task, load_splits

__all__ = ["CHARACTERS", "TaskSize", "task_size"]

CHARACTERS = 4.0
"""Characters a token, for English text and today's vocabularies."""
_SAMPLE = 64
"""Rows whose length is looked at."""


@dataclass(frozen=True)
class TaskSize:
    """Rows of a task and their mean length in tokens."""

    tokens_per_row: float
    dev: int
    test: int
    task: Task
    train: tuple[Example, ...]


def task_size(graph: StudyGraph, name: str, data_dir: Path | None) -> TaskSize:
    """Look at some rows of a task as they are shown to the model."""
    task = get_task(name)
    splits = load_splits(task, graph.study.protocol, data_dir=data_dir)
    rows = splits.train[:: max(1, len(splits.train) // _SAMPLE)]
    rendered = [task.render(row, style=graph.study.prompt) for row in rows]
    characters = fmean(len(row.prompt) + sum(map(len, row.options)) for row in rendered)
    return TaskSize(characters / CHARACTERS + 1, len(splits.dev), len(splits.test), task, tuple(splits.train))
