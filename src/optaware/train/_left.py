"""What an earlier call of a run has left behind: whole, or in which way not."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from optaware.errors import InputError, IntegrityError, Problem
from optaware.records import Schedule, parse_record
from optaware.store import RunFolder
from optaware.train._checkpoint import LAST, Checkpoint
from optaware.train._journal import JournalHeader, foreign, read_journal
from optaware.train._progress import Progress

__all__ = ["FOREIGN", "Left", "read_left", "readable_rows"]

FOREIGN = frozenset({"checkpoint-foreign", "journal-foreign"})
"""Codes of errors that beginning anew would hide: the folder belongs to something else."""


@dataclass(frozen=True)
class Left:
    """A checkpoint with everything that has to lie beside it."""

    progress: Progress
    weights: dict[str, Tensor]
    state: dict[str, Tensor]


def read_left(
    folder: RunFolder,
    last: Checkpoint,
    best: Checkpoint,
    identity: dict[str, Any],
    header: JournalHeader | None,
    schedule: Schedule,
    *,
    scored: bool,
) -> Left:
    """Read the last checkpoint and see that logs, journal and best checkpoint reach as far as it does.

    Files are brought to the disk before the state that counts on them, so after a kill or a loss of power they do. It
    is otherwise when a disk or a copy has lost bytes; the run can then not go on from here to the same end.

    Args:
        folder: The run.
        last: Its last checkpoint; it exists.
        best: Its best one.
        identity: What the state must say of spec and base weights.
        header: Of the journal; None: the method has none.
        schedule: Steps and evaluations.
        scored: Whether there are dev rows, so that evaluations are logged.

    Raises:
        IntegrityError: `checkpoint-foreign` and `journal-foreign`: of something else; any other code: damaged.
    """
    state = last.state()
    if {key: state.get(key) for key in identity} != identity:
        raise IntegrityError(
            Problem(
                "checkpoint-foreign",
                LAST,
                "it was written for another spec or other base weights",
                "Delete the run's folder and run it again.",
                str(last.folder),
            )
        )
    try:
        progress = parse_record(Progress, state["progress"], str(last.folder))
        found = Left(progress, last.load("weights"), last.load("state"))
        if progress.best_step not in (None, progress.step):
            if best.state()["step"] != progress.best_step:
                raise last.damaged("the best weights are not those that it names")
            best.check("weights")
        _see_rows(folder, progress, schedule, last, scored=scored)
    except (InputError, KeyError, TypeError) as error:
        raise last.damaged("a file of the run cannot be read") from error
    if header is not None:
        _see_journal(folder, header, progress.step, last)
    return found


def readable_rows(path: Path) -> list[Any]:
    """The rows of a log up to the first that cannot be read; what follows a damaged one counts as lost."""
    if not path.exists():
        return []
    rows: list[Any] = []
    for line in path.read_bytes().splitlines(keepends=True):
        try:
            row = json.loads(line)
        except ValueError:
            break
        if not line.endswith(b"\n") or not isinstance(row, dict) or not isinstance(row.get("step"), int):
            break
        rows.append(row)
    return rows


def _see_rows(folder: RunFolder, progress: Progress, schedule: Schedule, last: Checkpoint, *, scored: bool) -> None:
    steps = [row["step"] for row in readable_rows(folder.steps)]
    if steps[: progress.step] != list(range(1, progress.step + 1)):
        raise last.damaged(f"{folder.steps.name} does not hold the {progress.step} steps before it")
    if not scored or progress.ended == "diverged":
        return
    every = schedule.eval_every
    wanted = [step for step in range(1, progress.step + 1) if step % every == 0 or step == schedule.steps]
    there = [row["step"] for row in readable_rows(folder.evals)]
    if there[: len(wanted)] != wanted:
        raise last.damaged(f"{folder.evals.name} does not hold the {len(wanted)} evaluations before it")


def _see_journal(folder: RunFolder, header: JournalHeader, step: int, last: Checkpoint) -> None:
    try:
        found, steps = read_journal(folder.journal)
    except OSError as error:
        raise last.damaged(f"{folder.journal.name} beside it cannot be read") from error
    if why := header.difference(found):
        raise foreign(folder.journal, why)
    if len(steps) < step:
        raise last.damaged(f"{folder.journal.name} does not hold the {step} steps before it")
