"""A study while it runs, read from its folders: how many runs are where, what those under way reach, what failed."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optaware._io import is_locked
from optaware.errors import InputError
from optaware.store import Store

__all__ = ["Seen", "changes", "find_study", "look", "screen", "summary"]

_TAIL_BYTES = 4096
_MOST = 12
"""Rows of a part of the screen; the others are counted."""


@dataclass(frozen=True)
class Seen:
    """What was seen at one look.

    Attributes:
        title: The study, or the results folder where it holds none.
        runs: Rows of the store's index by run id. In those under way `steps` and `dev_accuracy` are the last that were
            logged, with `loss` and `moved`, when that was (seconds since the epoch).
        total: Runs that the study will have; None when it does not say. A grid without a usable point makes fewer.
        corpora: Rewritten corpora that are done, and how many there are to be.
        driven: Whether a process runs the study, as its lock shows; None where there is no study yet.
    """

    title: str
    runs: Mapping[str, dict[str, Any]]
    total: int | None
    corpora: tuple[int, int]
    driven: bool | None = None

    @property
    def states(self) -> Counter[str]:
        """How many runs are in each state."""
        return Counter(row["state"] for row in self.runs.values())

    @property
    def is_over(self) -> bool:
        """Whether nothing is under way, and nothing is left or nobody is there to begin it."""
        return not self.states["running"] and (self._is_whole or self.driven is False)

    @property
    def _is_whole(self) -> bool:
        states = self.states
        return self.total is not None and states["done"] + states["diverged"] + states["pruned"] >= self.total


def find_study(store: Store, name: str | None) -> Path | None:
    """The folder of a study by the beginning of its id or by its name; None: the last that was begun or gone on with.

    Raises:
        InputError: There is no such study, or more than one.
    """
    found = sorted(store.root.glob("studies/*/index.json"), key=lambda path: path.stat().st_mtime)
    if name is None:
        return found[-1].parent if found else None
    fits = [path.parent for path in found if path.parent.name.startswith(name) or path.parent.name[13:] == name]
    if len(fits) == 1:
        return fits[0]
    said = ", ".join(path.name for path in fits) or f"there is no such study in {store.root / 'studies'}"
    raise InputError.of("study-unknown", name, said, "Give the first digits of a study's id, or leave it out.")


def look(store: Store, study: Path | None) -> Seen:
    """Read where the runs of a study stand; without one, all runs of the folder."""
    rows = {row["run"]: row for row in store.index()}
    title, total, corpora, driven = str(store.root), None, (0, 0), None
    if study is not None:
        index = json.loads((study / "index.json").read_bytes())
        members = {*index["runs"], *index["choosing"], *index["possible"]}
        rows = {run: row for run, row in rows.items() if run in members}
        title = study.name
        if "finals" in index:
            total = len(index["runs"]) + len(index["choosing"]) + index["finals"]
        done = sum(
            (store.root / "corpora" / f"{key}-{slug}" / "DONE").exists() for key, slug in index["corpora"].items()
        )
        corpora, driven = (done, len(index["corpora"])), is_locked(study / ".lock")
    for run, row in rows.items():
        if row["state"] == "running":
            rows[run] = {**row, **_under_way(store.root / "runs" / row["folder"])}
    return Seen(title, rows, total, corpora, driven)


def _under_way(folder: Path) -> dict[str, Any]:
    step, evaluation = _last(folder / "steps.jsonl"), _last(folder / "eval.jsonl")
    moved = 0.0
    with suppress(OSError):
        moved = (folder / "steps.jsonl").stat().st_mtime
    return {
        "steps": step.get("step", 0),
        "loss": step.get("loss"),
        "dev_accuracy": evaluation.get("accuracy"),
        "moved": moved,
    }


def _last(path: Path) -> dict[str, Any]:
    """The last whole line of a log that may be written at this moment."""
    with suppress(OSError, ValueError), path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        lines = file.read().split(b"\n")[:-1]
        row = json.loads(lines[-1]) if lines else {}
        return row if isinstance(row, dict) else {}
    return {}


def summary(seen: Seen) -> str:
    """One line: runs by state, and corpora."""
    states = seen.states
    done = states.pop("done", 0)
    of = f" of {seen.total}" if seen.total is not None else ""
    parts = [f"{done}{of} done", *(f"{count} {state}" for state, count in sorted(states.items()))]
    if seen.corpora[1]:
        parts.append(f"{seen.corpora[0]} of {seen.corpora[1]} corpora")
    if seen.is_over and seen.driven is False and done != seen.total:
        parts.append("no process runs it now")
    return f"{seen.title}: {', '.join(parts)}"


def _reached(row: Mapping[str, Any]) -> str:
    for name in ("test_accuracy", "dev_accuracy"):
        if row.get(name) is not None:
            return f"{name[:-9]} {100 * row[name]:.2f} %"
    return ""


def changes(before: Seen | None, now: Seen) -> Iterator[str]:
    """A line for each run that changed its state, or was scored on dev rows, since the last look."""
    for run, row in now.runs.items():
        old = None if before is None else before.runs.get(run)
        what = row["folder"][13:]
        if row["state"] == "planned":
            continue
        if old is None or old["state"] != row["state"]:
            if before is None and row["state"] != "running":
                continue  # what had ended before one began to watch is in the summary
            why = f"  {row['detail']}" if row["state"] not in ("done", "running") and row["detail"] else ""
            yield f"{row['state']:<8} {what}  [{run}]  {_reached(row)}{why}".rstrip()
        elif row["state"] == "running" and old.get("dev_accuracy") != row.get("dev_accuracy"):
            yield f"step {_steps(row)}  {what}  [{run}]  {_reached(row)}"


def screen(seen: Seen) -> Any:
    """What a terminal shows: the summary, runs under way, the last that ended, and those that failed."""
    from rich.console import Group
    from rich.text import Text

    by_time = sorted(seen.runs.values(), key=lambda row: row["updated"] or "", reverse=True)
    parts: list[Any] = [Text(summary(seen), style="bold")]
    running = sorted((row for row in by_time if row["state"] == "running"), key=lambda row: row["folder"][13:])
    one_model = len({row["model"] for row in by_time}) == 1

    def short(row: Mapping[str, Any]) -> str:
        """What a run is, without the model's name where all have the same."""
        name = str(row["folder"][13:])
        return name[name.find(f"-{Path(row['task']).stem}-") + 1 :] if one_model else name

    parts += _part(
        "under way",
        ["run", "what", "steps", "loss", "dev", "last step"],
        [[row["run"], short(row), _steps(row), _loss(row), _reached(row), _ago(row["moved"])] for row in running],
    )
    ended = [row for row in by_time if row["state"] in ("done", "diverged", "pruned")]
    parts += _part(
        "ended last",
        ["run", "what", "state", "reached"],
        [[row["run"], short(row), row["state"], _reached(row)] for row in ended],
    )
    stuck = [row for row in by_time if row["state"] in ("failed", "stopped")]
    parts += _part(
        "failed or stopped",
        ["run", "what", "state", "why"],
        [[row["run"], short(row), row["state"], row["detail"][:200]] for row in stuck],
    )
    return Group(*parts)


def _steps(row: Mapping[str, Any]) -> str:
    return f"{row['steps']}/{row['of'] or 0}"


def _loss(row: Mapping[str, Any]) -> str:
    return "" if row["loss"] is None else f"{row['loss']:.4f}"


def _ago(moved: float) -> str:
    seconds = time.time() - moved
    if not moved:
        return "none yet"
    return f"{seconds:.0f} s ago" if seconds < 120 else f"{seconds / 60:.0f} min ago"


def _part(title: str, columns: list[str], rows: list[list[Any]]) -> list[Any]:
    if not rows:
        return []
    from rich.table import Table
    from rich.text import Text

    table = Table(title=title if len(rows) <= _MOST else f"{title} ({_MOST} of {len(rows)})", title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows[:_MOST]:
        table.add_row(*(Text(str(cell)) for cell in row))
    return [table]
