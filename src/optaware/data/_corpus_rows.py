"""The rows that a corpus was made from, found again: by its protocol, or else by their ids."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from optaware._io import read_json, read_jsonl
from optaware.data._corpus import rows_sha256
from optaware.errors import InputError
from optaware.records import CorpusSpec, Example, Protocol, parse_record
from optaware.tasks import Task, load_splits

__all__ = ["CorpusRows", "corpus_rows", "read_corpus_spec"]


@dataclass(frozen=True)
class CorpusRows:
    """A corpus's original training rows, in its order, and the rows of dev and test that its rewrites may be held
    against."""

    train: tuple[Example, ...]
    held_out: tuple[Example, ...]


def read_corpus_spec(folder: Path) -> CorpusSpec:
    """The spec in a corpus's folder.

    Raises:
        InputError: There is none; where the folder is that of a template build, its trials, which are corpora, are
            named.
    """
    path = folder / "spec.json"
    trials = sorted(each.parent for each in folder.glob("**/trial-*/DONE"))
    if trials and not folder.name.startswith("trial-"):
        shown = ", ".join(str(each) for each in trials[-3:])
        raise InputError.of(
            "corpus-is-build",
            str(folder),
            f"it is a template build; the corpora in it are the {len(trials)} trials of its templates",
            f"Give one of them: {shown}.",
        )
    return parse_record(CorpusSpec, read_json(path), str(path))


def corpus_rows(folder: Path, spec: CorpusSpec, task: Task, *, data_dir: Path | None = None) -> CorpusRows:
    """The rows behind a finished corpus.

    A study's corpus is made from the training rows of its protocol. Others, such as the trials of a template, are made
    from some rows of the source: those are looked up by the ids in `decisions.jsonl`, and what is held out is all of
    the source's other splits.

    Args:
        folder: Folder of the corpus.
        spec: Its spec.
        task: The task.
        data_dir: A folder of data sets.

    Raises:
        InputError: The source has not these rows, or has changed since.
    """
    failed: InputError | None = None
    try:
        splits = load_splits(task, spec.protocol, data_dir=data_dir)
        if rows_sha256(splits.train) == spec.rows_sha256:
            return CorpusRows(splits.train, (*splits.dev, *splits.test))
    except InputError as error:
        failed = error  # a trial's protocol names no sizes; if nothing else helps, this is what is wrong
    path = folder / "decisions.jsonl"
    wanted = [str(row["example_id"]) for row in read_jsonl(path)] if path.is_file() else []
    try:
        splits = load_splits(task, Protocol(name="all"), data_dir=data_dir)
    except InputError as error:
        raise failed or error from error
    known = {example.id: example for example in (*splits.train, *splits.dev, *splits.test)}
    found = tuple(known[name] for name in wanted if name in known)
    if not found or rows_sha256(found) != spec.rows_sha256:
        missing = len(wanted) - len(found)
        why = f"{missing} of them are not in it" if missing else "their contents differ"
        source = f"{splits.source.kind} {splits.source.location}"
        raise InputError.of(
            "corpus-rows-differ",
            f"the {len(wanted)} rows of {folder.name}, source {source}",
            f"{why}: the corpus was made from other rows",
            "Give the data that it was made from: --data-dir, or the task file as it was.",
        )
    used = set(wanted)
    return CorpusRows(found, tuple(example for example in (*splits.dev, *splits.test) if example.id not in used))
