"""The tables as OAT-Rephrase prints them: rewriter accuracy by task, and accuracy by model, method, data and task."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optaware.records import Interval, StudySpec
from optaware.report._analysis import Cell, Comparison, Family, cell
from optaware.report._arms import ArmKey, Collected, task_name, zero_shot_arm
from optaware.report._corpora import CorpusView

__all__ = ["Average", "PaperCell", "PaperRow", "PaperTable", "RewriterRow", "average", "paper_tables", "rewriter_rows"]


@dataclass(frozen=True)
class Average:
    """A mean over tasks with its interval, and which tasks are in it."""

    interval: Interval
    tasks: tuple[str, ...]
    complete: bool
    """Whether all tasks of the study are in it."""


@dataclass(frozen=True)
class PaperCell:
    """One accuracy, its mark against the baseline's data, and whether it is the highest of its column."""

    cell: Cell | None
    mark: str
    best: bool


@dataclass(frozen=True)
class PaperRow:
    """One method on one version of the data."""

    method: str
    variant: str
    first: bool
    """Whether it is the method's first row."""
    cells: tuple[PaperCell, ...]
    average: Average | None
    difference: Average | None
    """Mean over tasks of the paired differences from the baseline's data; None in the baseline's own row."""


@dataclass(frozen=True)
class PaperTable:
    """Sub-table of one model."""

    model: str
    tasks: tuple[str, ...]
    rows: tuple[PaperRow, ...]
    zero_shot: tuple[Cell | None, ...]
    majority: tuple[float | None, ...]


@dataclass(frozen=True)
class RewriterRow:
    """Rewriter accuracy of one variant, by task (None: no corpus)."""

    variant: str
    cells: tuple[tuple[str, CorpusView | None], ...]


def average(parts: Sequence[tuple[str, Interval]], tasks: Sequence[str]) -> Average | None:
    """Mean of estimates of different tasks, with an interval from theirs.

    `low = m − √Σ(eₜ − lₜ)²/T`, `high = m + √Σ(hₜ − eₜ)²/T`: the tasks' rows are different samples, so variances add;
    asymmetric intervals keep their shape (Zou and Donner, Statistics in Medicine 27 (2008), "MOVER").

    Args:
        parts: Task and interval, for the tasks that have one.
        tasks: All tasks of the study.
    """
    if not parts:
        return None
    count = len(parts)
    mean = sum(each.estimate for _, each in parts) / count
    below = math.sqrt(sum((each.estimate - each.low) ** 2 for _, each in parts)) / count
    above = math.sqrt(sum((each.high - each.estimate) ** 2 for _, each in parts)) / count
    level = parts[0][1].level
    method = f"mean over {count} tasks, limits combined (MOVER)"
    interval = Interval(estimate=mean, low=mean - below, high=mean + above, level=level, method=method)
    return Average(interval, tuple(task for task, _ in parts), count == len(tasks))


def rewriter_rows(study: StudySpec, collected: Collected, corpora: Sequence[CorpusView]) -> tuple[RewriterRow, ...]:
    """Table 1: for each rewritten variant the rewriter's accuracy on each task."""
    found = {(task_name(view.corpus.card.task), view.corpus.card.variant): view for view in corpora}
    names = [variant.name for variant in study.variants if not variant.is_original]
    return tuple(
        RewriterRow(name, tuple((task, found.get((task, name))) for task in collected.tasks)) for name in names
    )


def paper_tables(
    study: StudySpec, collected: Collected, cells: Mapping[ArmKey, Cell], families: Sequence[Family]
) -> tuple[PaperTable, ...]:
    """Table 2, a sub-table per model. Zero-shot cells are those of the collected untrained models."""
    pairs = {
        (item.contrast.model, item.contrast.task, item.contrast.method, item.contrast.arm): item
        for family in families
        if family.key == "baseline"
        for item in family.comparisons
    }
    return tuple(_table(model, study, collected, cells, pairs) for model in collected.models)


def _table(
    model: str,
    study: StudySpec,
    collected: Collected,
    cells: Mapping[ArmKey, Cell],
    pairs: Mapping[tuple[str, str, str, str], Comparison],
) -> PaperTable:
    tasks = collected.tasks
    highest = {
        task: max(
            (
                each.accuracy.estimate
                for key, each in cells.items()
                if key.task == task and key.model == model and each.accuracy
            ),
            default=None,
        )
        for task in tasks
    }
    rows = []
    for arm in study.methods:
        method = arm.display
        wanted = [each.name for each in study.variants if arm.variants is None or each.name in arm.variants]
        for variant in wanted if arm.config.name != "zero-shot" else []:
            made = [cells.get(ArmKey(model, task, method, variant)) for task in tasks]
            if not any(each is not None for each in made):
                continue
            compared = [pairs.get((model, task, method, variant)) for task in tasks]
            rows.append(
                PaperRow(
                    method=method,
                    variant=variant,
                    first=variant == wanted[0],
                    cells=tuple(
                        PaperCell(
                            each,
                            item.verdict if item else "",
                            bool(each and each.accuracy and each.accuracy.estimate == highest[task]),
                        )
                        for task, each, item in zip(tasks, made, compared, strict=True)
                    ),
                    average=average(
                        [(t, e.accuracy) for t, e in zip(tasks, made, strict=True) if e is not None and e.accuracy],
                        tasks,
                    ),
                    difference=average(
                        [(t, i.contrast.difference) for t, i in zip(tasks, compared, strict=True) if i is not None],
                        tasks,
                    ),
                )
            )
    untrained = [collected.zero_shot.get((model, task)) for task in tasks]
    return PaperTable(
        model=model,
        tasks=tasks,
        rows=tuple(rows),
        zero_shot=tuple(
            cell(zero_shot_arm(model, task, scored)) if scored else None
            for task, scored in zip(tasks, untrained, strict=True)
        ),
        majority=tuple(collected.majority.get(task) for task in tasks),
    )
