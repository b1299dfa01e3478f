"""Handing a finished corpus on: JSONL, Parquet or a `datasets.Dataset`, in columns that trainers know."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from optaware._io import read_json, storage_errors, write_bytes, write_json, write_jsonl
from optaware.data._card import samples
from optaware.data._card_page import card_page, last_part
from optaware.data._corpus import checked_rows
from optaware.errors import InputError
from optaware.records import CorpusSpec, DatasetCard, parse_record
from optaware.tasks import Task

__all__ = ["ExportFormat", "ExportStyle", "corpus_columns", "export_corpus", "to_dataset"]

ExportFormat = Literal["jsonl", "parquet", "datasets"]
ExportStyle = Literal["sft", "rows"]

_ROWS_AT_ONCE = 4096
_STYLES: Mapping[ExportStyle, str] = {
    "sft": "`prompt` and `completion`, the columns that TRL's `SFTTrainer` takes as they are; the completion is the "
    "right answer, and with the prompt it is the text that optaware trains on",
    "rows": "the task's own columns, and with them `example_id`, `outcome` (accepted, rejected, failed) and `original` "
    "(the span before rewriting)",
}


def corpus_columns(
    folder: Path, task: Task, *, style: ExportStyle = "sft", prompt: str = "default"
) -> Iterator[dict[str, Any]]:
    """The rows of a finished corpus in the order of the training rows, read one by one.

    Args:
        folder: Folder of the corpus.
        task: Its task.
        style: `sft`: `prompt` and `completion`, `prompt + completion` being the text of the right answer. `rows`: the
            task's own columns with `example_id`, `outcome` and `original`.
        prompt: Prompt style (`sft`).

    Raises:
        InputError: The corpus is not finished.
        IntegrityError: Its rows were changed since.
    """
    path = checked_rows(folder)
    with path.open("rb") as rows, (folder / "decisions.jsonl").open("rb") as decisions:
        for number, (line, decided) in enumerate(zip(rows, decisions, strict=True)):
            fields, decision = json.loads(line), json.loads(decided)
            if style == "rows":
                about = {"example_id": decision["example_id"], "outcome": decision["outcome"]}
                yield {**about, **fields, "original": decision["original"]}
                continue
            rendered = task.render(task.example(fields, "train", number, f"{path}: row {number + 1}"), prompt)
            yield {"prompt": rendered.prompt, "completion": rendered.options[rendered.label]}


def to_dataset(folder: Path, task: Task, *, style: ExportStyle = "sft", prompt: str = "default") -> Any:
    """The rows as a `datasets.Dataset`; see `corpus_columns`.

    Raises:
        InputError: The package `datasets` is missing, or as in `corpus_columns`.
    """
    try:
        from datasets import Dataset
    except ImportError as error:
        raise InputError.of(
            "datasets-missing", "datasets", "the package is not installed", "pip install 'optaware[trl]'"
        ) from error
    return Dataset.from_list(list(corpus_columns(folder, task, style=style, prompt=prompt)))


def export_corpus(
    folder: Path,
    task: Task,
    out: Path,
    *,
    format: ExportFormat = "parquet",
    style: ExportStyle = "sft",
    prompt: str = "default",
) -> Path:
    """Write a corpus for others into a folder that can be passed on, or put on a hub, as it is.

    The folder gets the rows (`train.parquet`, `train.jsonl`, or Arrow files that `datasets.load_from_disk` reads), the
    card as `card.json` and as `README.md`. Rows are streamed, except for `datasets`.

    Args:
        folder: Folder of the corpus.
        task: Its task.
        out: The new folder; files of these names in it are replaced.
        format: Of the rows.
        style: See `corpus_columns`.
        prompt: Prompt style.

    Returns:
        The file (or folder) that holds the rows.

    Raises:
        InputError: As in `to_dataset`; or `out` is the corpus's own folder.
    """
    if out.resolve() == folder.resolve():
        raise InputError.of("export-into-itself", str(out), "it is the corpus's own folder", "Choose another folder.")
    card = parse_record(DatasetCard, read_json(folder / "card.json"), str(folder / "card.json"))
    spec = parse_record(CorpusSpec, read_json(folder / "spec.json"), str(folder / "spec.json"))
    rows = corpus_columns(folder, task, style=style, prompt=prompt)
    name = {"jsonl": "train.jsonl", "parquet": "train.parquet", "datasets": "train"}[format]
    if format == "jsonl":
        write_jsonl(out / name, rows)
    elif format == "parquet":
        write_bytes(out / name, _parquet(rows, out))
    else:
        made = to_dataset(folder, task, style=style, prompt=prompt)
        with storage_errors(out / name):
            made.save_to_disk(str(out / name))
    files = f"## Columns\n\n{_STYLES[style]}.\n"
    page = card_page(card, spec, task, samples(folder), data_file=name, files=files)
    write_bytes(out / "README.md", page.encode("utf-8", "surrogatepass"))
    write_json(out / "card.json", card.model_copy(update={"task": last_part(card.task)}).to_json())
    return out / name


def _parquet(rows: Iterator[dict[str, Any]], folder: Path) -> Iterator[bytes]:
    """The bytes of a Parquet file, written in groups of rows to a file without a name, then read back in blocks."""
    import tempfile

    import pyarrow as pa
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        writer = None
        while part := list(islice(rows, _ROWS_AT_ONCE)):
            table = pa.Table.from_pylist(part, schema=None if writer is None else writer.schema)
            writer = writer or pq.ParquetWriter(file, table.schema)
            writer.write_table(table)
        if writer is not None:
            writer.close()
        file.seek(0, os.SEEK_SET)
        while block := file.read(1 << 20):
            yield block
