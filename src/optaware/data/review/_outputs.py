"""What labels are good for afterwards: training rows with approved rewrites only, and labels without copied text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from optaware.data._gate import fitted
from optaware.records import Example, PairLabel
from optaware.tasks import Task

__all__ = ["approved_rows", "without_originals"]


def approved_rows(task: Task, examples: Sequence[Example], labels: Iterable[PairLabel]) -> list[dict[str, Any]]:
    """Training rows in the task's own columns, rewritten where the label is `same` and as they were elsewhere.

    Args:
        task: The task.
        examples: The training rows.
        labels: Labels that stand, one per pair.

    Returns:
        One row for every example, with `example_id`: the form that `optaware.data.load_user_corpus` reads. Of several
        approved rewrites of a row the first is taken.
    """
    approved: Mapping[str, PairLabel] = {
        str(label.example_id): label for label in reversed(list(labels)) if label.verdict == "same"
    }
    rows = []
    for example in examples:
        label = approved.get(example.id)
        if label is not None:
            example = task.with_span(example, fitted(task.span_text(example), label.rewritten))
        rows.append({"example_id": example.id, **example.fields})
    return rows


def without_originals(labels: Iterable[PairLabel]) -> list[PairLabel]:
    """The labels without the text of the data set, for rows whose licence forbids to copy it; ids and hashes stay."""
    return [label.model_copy(update={"original": None}) for label in labels]
