"""Where pairs come from: rows and rewrites in memory, a JSONL file, or the folder of a corpus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optaware._io import canonical_json, read_json, read_jsonl, text_sha256, write_jsonl
from optaware.data._prompts import role_lines
from optaware.errors import InputError, Problem, ProblemList
from optaware.records import CorpusSpec, Decision, Example, ReviewPair, parse_record
from optaware.tasks import Task, get_task, load_rows

__all__ = ["RowFinder", "corpus_pairs", "make_pair", "pair_id", "read_pairs", "write_pairs"]

FindRow = Callable[[str, str], Example]
"""Finds the row with an id; the second argument is the place that the id came from, for the error."""

Lines = Callable[[Example], dict[str, str | list[str]]]
"""Gives the lines that stand beside a row's span."""

_LOOSE = {"rewrite": "rewritten", "rewritten_span": "rewritten", "span": "original"}
_LABEL_ONLY = ("pair_id", "original_sha256", "answer", "faults", "note", "labeller", "at", "seconds", "undo")


def pair_id(task: str | None, example_id: str | None, original: str, rewritten: str) -> str:
    """The id of a pair: the first 16 hexadecimal digits of the SHA-256 of its content."""
    return text_sha256(canonical_json([task, example_id, original, rewritten]))[:16]


def make_pair(
    task: Task,
    example: Example,
    rewritten: str,
    *,
    origin: str = "",
    outcome: str = "",
    reason: str = "",
    lines: Lines | None = None,
) -> ReviewPair:
    """The pair of a row and a rewrite of its span, with the lines that the judge of `role` would see.

    Args:
        task: The task.
        example: The original row.
        rewritten: The rewritten span.
        origin: Who or what wrote the rewrite.
        outcome: What the gate did with it; empty when none saw it.
        reason: Why.
        lines: Gives the lines beside the span, where many pairs are made; None: those of the task.
    """
    original = task.span_text(example)
    return ReviewPair(
        id=pair_id(task.name, example.id, original, rewritten),
        task=task.name,
        example_id=example.id,
        original=original,
        rewritten=rewritten,
        given=(lines or role_lines(task))(example),
        origin=origin,
        outcome=outcome,
        reason=reason,
    )


def write_pairs(path: Path, pairs: Iterable[ReviewPair]) -> None:
    """Write pairs to a JSONL file that `read_pairs` and `optaware data review` take."""
    write_jsonl(path, (pair.to_json() for pair in pairs))


@dataclass
class RowFinder:
    """Finds rows of a task by id, reading the source's splits when they are first needed.

    Attributes:
        task: The task.
        data_dir: As in `load_rows`.
    """

    task: Task
    data_dir: Path | None = None
    _found: dict[str, Example] | None = field(default=None, repr=False)

    def __call__(self, example_id: str, where: str) -> Example:
        """The row with this id.

        Raises:
            InputError: The task has no such row, or no source has its rows.
        """
        if self._found is None:
            self._found = {}
            for role in ("train", "dev", "test"):
                rows = load_rows(self.task, role, data_dir=self.data_dir)
                self._found |= {example.id: example for example in rows.examples}
        if example_id not in self._found:
            raise InputError.of(
                "row-unknown",
                f"example_id {example_id!r}",
                f"task {self.task.name} has no such row here",
                "Correct the id, or give the original text and its other fields in the row.",
                where,
            )
        return self._found[example_id]


def read_pairs(
    path: Path, task: Task | None = None, *, find: FindRow | None = None, of_task: bool = False
) -> list[ReviewPair]:
    """Read the pairs of a JSONL file.

    A row has `rewritten` (or `rewrite`) and `original`, or instead of the latter an `example_id` of `task`, whose row
    is then looked up; optional are `given` (lines beside the span), `origin`, `outcome` and `reason`. The lines of a
    labels file are such rows too. Pairs that occur more than once are taken once.

    Args:
        path: The file.
        task: The task; needed for rows without `original`. With it, missing `given` lines come from the task's row.
        find: Finds the task's rows; None: a `RowFinder`.
        of_task: Leave out rows that say that they belong to another task.

    Raises:
        InputError: All rows that are malformed, cannot be looked up, or whose original is not the task's.
    """
    problems = ProblemList(str(path))
    find = find or (None if task is None else RowFinder(task))
    lines = None if task is None else role_lines(task)
    found: dict[str, ReviewPair] = {}
    for number, row in enumerate(read_jsonl(path, torn_tail=True), start=1):
        where = f"{path}: row {number}"
        if of_task and task is not None and isinstance(row, Mapping) and row.get("task") not in (None, task.name):
            continue
        with problems.collecting():
            pair = _pair(row, task, find, lines, where)
            found.setdefault(pair.id, pair)
    problems.raise_if_any()
    if not found:
        raise InputError.of("pairs-missing", str(path), "it holds no pairs", "Give a file with one pair a line.")
    return list(found.values())


def _pair(row: Any, task: Task | None, find: FindRow | None, lines: Lines | None, where: str) -> ReviewPair:
    if not isinstance(row, Mapping):
        raise InputError.of("not-a-row", repr(row)[:60], "a row is a JSON object", "Correct it.", where)
    data: dict[str, Any] = {_LOOSE.get(str(key), str(key)): value for key, value in row.items()}
    stated = data.get("original_sha256")
    data = {key: value for key, value in data.items() if key not in (*_LABEL_ONLY, "id")}
    name, original = data.get("example_id"), data.get("original")
    if (
        task is not None
        and find is not None
        and lines is not None
        and isinstance(name, str)
        and (original is None or not data.get("given"))
    ):
        data |= _looked_up(task, find, lines, name, original, where)
    if data.get("original") is None:
        raise InputError.of(
            "original-missing",
            f"a row without original{f' (example_id {name!r})' if name else ''}",
            "a rewrite is compared with something",
            "Give `original`, or `example_id` and --task.",
            where,
        )
    data["task"] = data.get("task") or (None if task is None else task.name)
    pair = parse_record(ReviewPair, {"id": "", **data}, where)
    if stated is not None and stated != text_sha256(pair.original):
        raise InputError(
            Problem(
                "original-changed",
                f"example_id {name!r}",
                "the row's text here is not the one that was labelled",
                "Use the data that the labels were made on.",
                where,
            )
        )
    return pair.model_copy(update={"id": pair_id(pair.task, pair.example_id, pair.original, pair.rewritten)})


def _looked_up(task: Task, find: FindRow, lines: Lines, name: str, original: Any, where: str) -> dict[str, Any]:
    try:
        example = find(name, where)
    except InputError:
        if original is None:
            raise
        return {}  # the row says itself what the original is; only the lines beside it are missing
    text = task.span_text(example)
    if original is not None and original != text:
        raise InputError(
            Problem(
                "original-differs",
                f"{name}: {str(original)[:60]!r}",
                f"the {task.span} of that row is {text[:60]!r}",
                "Correct the id or the text.",
                where,
            )
        )
    return {"original": text, "given": lines(example)}


def corpus_pairs(folder: Path, *, unchanged: bool = False) -> tuple[Task, list[ReviewPair]]:
    """The pairs of a finished corpus: every row that has a rewrite, with what the gate did with it.

    The lines beside the span come from the corpus's own `train.jsonl`, so the data set itself is not needed.

    Args:
        folder: Folder of the corpus.
        unchanged: Take also the rows whose rewrite is the original word for word.

    Raises:
        InputError: The corpus is not finished.
    """
    if not (folder / "DONE").is_file():
        raise InputError.of(
            "corpus-unfinished", str(folder), "its DONE marker is missing", "Run the command that makes it again."
        )
    spec = parse_record(CorpusSpec, read_json(folder / "spec.json"), str(folder / "spec.json"))
    task = get_task(spec.task)
    decisions, rows = read_jsonl(folder / "decisions.jsonl"), read_jsonl(folder / "train.jsonl")
    lines = role_lines(task)
    found, origin = [], f"{spec.rewriter.provider}:{spec.rewriter.model}"
    for number, (line, row) in enumerate(zip(decisions, rows, strict=True)):
        decision = parse_record(Decision, line, f"{folder / 'decisions.jsonl'}: row {number + 1}")
        if decision.rewritten is None or (decision.reason == "identical" and not unchanged):
            continue
        split, index = decision.example_id.split("/")[-2:]
        here = task.example(row, split, int(index), f"{folder / 'train.jsonl'}: row {number + 1}")
        example = task.with_span(here, decision.original) if decision.original.strip() else here
        pair = make_pair(
            task,
            example,
            decision.rewritten,
            origin=origin,
            outcome=decision.outcome,
            reason=decision.reason,
            lines=lines,
        )
        found.append(pair)
    return task, found
