"""Specs of corpora, and reading finished ones back as training rows."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

from optaware._io import canonical_json, file_sha256, read_json, read_jsonl
from optaware.data._judge_file import read_judge
from optaware.data._near import HeldOut
from optaware.data._prompts import prompt_ids
from optaware.data._retry import RETRY_PROMPT_ID
from optaware.errors import InputError, IntegrityError, Problem, ProblemList
from optaware.records import ChatModelRef, CorpusSpec, Example, GateSpec, Protocol, SearchSpec
from optaware.tasks import Task

__all__ = ["checked_rows", "load_corpus", "load_user_corpus", "make_corpus_spec", "rows_sha256"]


def rows_sha256(examples: Sequence[Example]) -> str:
    """SHA-256 over the ids, fields and labels of rows, in order."""
    digest = sha256()
    for number, example in enumerate(examples):
        line = canonical_json([example.id, example.fields, example.label])
        digest.update(("\n" * (number > 0) + line).encode("utf-8", "surrogatepass"))
    return digest.hexdigest()


def make_corpus_spec(
    *,
    task: Task,
    task_name: str,
    protocol: Protocol,
    variant: str,
    template: str,
    examples: Sequence[Example],
    rewriter: ChatModelRef,
    judge: ChatModelRef,
    gate: GateSpec | None = None,
    retries: int = 0,
    search: SearchSpec | None = None,
    held_out: HeldOut | None = None,
    judge_file: Path | None = None,
) -> CorpusSpec:
    """The spec of a rewritten corpus: everything that decides it, with rows and prompts by their content hashes.

    Args:
        task: The task.
        task_name: Its name, or the path of its file, as the spec is to hold it.
        protocol: Split protocol that `examples` come from.
        variant: Name of the version of the training rows.
        template: Rewriter template: `oat`, `paraphrase` or the path of a Jinja file.
        examples: The training rows.
        rewriter: Chat model that rewrites.
        judge: Chat model that judges.
        gate: Length bounds and acceptance level; None: the defaults.
        retries: Further tries for a row whose rewrite was rejected.
        search: Several rewrites of each row, of which one is chosen; None: one.
        held_out: Spans of dev and test rows that no rewrite may come near; None: not looked at.
        judge_file: A calibrated judge; None: the packaged one.

    Raises:
        InputError: No rows, an unknown or malformed template, or a search whose rewriter always says the same.
    """
    if not examples:
        raise InputError.of(
            "rows-missing", f"variant {variant!r} of {task_name}", "there are no training rows", "Check the protocol."
        )
    if search is not None and rewriter.temperature <= 0:
        raise InputError.of(
            "search-greedy",
            f"{search.candidates} rewrites at temperature {rewriter.temperature:g}",
            "a rewriter that always takes its likeliest word says the same each time",
            "Give the rewriter a temperature, such as 0.8.",
        )
    ids = prompt_ids(task, template, read_judge(judge_file))
    path = Path(template)
    return CorpusSpec(
        task=task_name,
        task_sha256=task.sha256,
        protocol=protocol,
        variant=variant,
        rewriter=rewriter,
        judge=judge,
        rewriter_prompt_id=ids.rewriter,
        judge_prompt_ids=ids.judge,
        template=str(path.resolve()) if path.suffix == ".jinja" else template,
        gate=gate or GateSpec(),
        rows_sha256=rows_sha256(examples),
        retries=retries,
        retry_prompt_id=RETRY_PROMPT_ID if retries else None,
        search=search,
        held_out_sha256=held_out.sha256 if held_out is not None else None,
        judge_file=None if judge_file is None else str(judge_file.resolve()),
    )


def load_corpus(folder: Path, task: Task, examples: Sequence[Example]) -> list[Example]:
    """The training rows of a finished corpus, in the order of `examples`, with their ids and labels.

    Args:
        folder: Folder of the corpus.
        task: The task.
        examples: The original training rows.

    Raises:
        InputError: The corpus is not finished, or was made for other rows.
        IntegrityError: `train.jsonl` is not what the corpus was finished with.
    """
    return load_user_corpus(checked_rows(folder), task, examples)


def checked_rows(folder: Path) -> Path:
    """The file `train.jsonl` of a finished corpus, once its bytes are those that the corpus was finished with.

    Raises:
        InputError: The corpus is not finished.
        IntegrityError: The file is missing or was changed.
    """
    done = folder / "DONE"
    if not done.is_file():
        raise InputError.of(
            "corpus-unfinished", str(folder), "its DONE marker is missing", "Run the command that makes it again."
        )
    path = folder / "train.jsonl"
    stated = read_json(done).get("sha256", {}).get("train.jsonl")
    if not path.is_file() or file_sha256(path) != stated:
        raise IntegrityError(
            Problem(
                "corpus-changed",
                str(path),
                "it is missing or was changed after the corpus was finished",
                "Delete the corpus folder and make it again; use rows of your own with `load_user_corpus`.",
                str(path),
            )
        )
    return path


def load_user_corpus(path: Path, task: Task, examples: Sequence[Example]) -> list[Example]:
    """Rewritten training rows from a JSONL file in the task's own columns, by whoever wrote them.

    Rows stand in the order of `examples`; or every row has an `example_id`, and any order will do. Only the span may
    differ from the original row.

    Args:
        path: The file.
        task: The task.
        examples: The original training rows.

    Returns:
        The rewritten rows with the ids and labels of the original ones, in their order.

    Raises:
        InputError: All rows that are malformed, missing, given twice, or differ in more than the span.
    """
    rows: list[Any] = read_jsonl(path)
    problems = ProblemList(str(path))
    by_id = [row for row in rows if isinstance(row, dict) and "example_id" in row]
    if by_id and len(by_id) == len(rows):
        rows = _in_order(rows, examples, problems)
    elif len(rows) != len(examples):
        problems.add(
            "rows-count",
            f"{len(rows)} rows",
            f"there are {len(examples)} training rows",
            "Give one row for each, in their order, or an `example_id` on every row.",
        )
    problems.raise_if_any()
    found = []
    for number, (row, example) in enumerate(zip(rows, examples, strict=True), start=1):
        where = f"{path}: row {number}"
        with problems.collecting():
            if not isinstance(row, dict):
                raise InputError.of("not-a-row", repr(row)[:60], "a row is a JSON object", "Correct it.", where)
            columns = {name: value for name, value in row.items() if name != "example_id"}
            found.append(_merged(task, task.example(columns, example.split, example.row, where), example, where))
    problems.raise_if_any()
    return found


def _in_order(rows: list[dict[str, Any]], examples: Sequence[Example], problems: ProblemList) -> list[dict[str, Any]]:
    by_id: dict[str, dict[str, Any]] = {}
    known = {example.id for example in examples}
    for number, row in enumerate(rows, start=1):
        name = str(row["example_id"])
        why = "it is given twice" if name in by_id else "" if name in known else "there is no such training row"
        if why:
            problems.add("row-id", f"row {number}: example_id {name!r}", why, "Correct the id.")
        by_id[name] = row
    for example in examples:
        if example.id not in by_id:
            problems.add("row-missing", example.id, "the file has no row for it", "Add it; the original row will do.")
    return [by_id[example.id] for example in examples if example.id in by_id]


def _merged(task: Task, given: Example, example: Example, where: str) -> Example:
    changed = [name for name in example.fields if name != task.span and given.fields.get(name) != example.fields[name]]
    if changed or given.label != example.label:
        raise InputError.of(
            "row-differs",
            f"{example.id}: {', '.join(changed) or 'label'}",
            f"only the {task.span} of a training row may be rewritten",
            "Give the rows in the order of the training rows, with their other fields as they are.",
            where,
        )
    return task.with_span(example, task.span_text(given))
