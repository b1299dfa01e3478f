from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from optaware._io import dumps, text_sha256
from optaware.assets._manifest import AssetSpec
from optaware.assets._rows import build_rows
from optaware.errors import AssetError, IntegrityError


def arrow_file(path: Path, rows: list[dict[str, Any]]) -> None:
    table = pyarrow.Table.from_pylist(rows)
    with pyarrow.OSFile(str(path), "wb") as sink, pyarrow.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def requests_file(path: Path, documents: list[dict[str, Any]]) -> None:
    """As evaluation packages have them: one request per answer option, each with its whole document."""
    with gzip.open(path, "wt", encoding="utf-8") as file:
        for document in documents:
            for option in document["choices"]:
                file.write(json.dumps({"doc": document, "request": {"continuation": option}}) + "\n")


def spec_for(rule: str, source: str, expected: list[dict[str, Any]], **changes: Any) -> AssetSpec:
    text = "".join(dumps(row) + "\n" for row in expected)
    output = {
        "path": "toy/train.jsonl",
        "source": source,
        "rule": rule,
        "rows": len(expected),
        "sha256": text_sha256(text),
    }
    zero = {"bytes": 0, "sha256": "0" * 64}
    return AssetSpec.model_validate(
        {
            "name": "toy",
            "kind": "data",
            "title": "",
            "licence": "",
            "recipe": "rows",
            "ready_bytes": 1,
            "files": [{"path": source, **zero}],
            "packages": [
                {"name": "p", "version": "1", "sha256": "0" * 64, "parts": [{"member": "m", "file": source, **zero}]}
            ],
            "outputs": [{**output, **changes}],
        }
    )


_ARC = [
    {"id": "q1", "query": "Question: Why?\nAnswer:", "choices": ["a", "b", "c"], "gold": 2},
    {"id": "q2", "query": "Question: Question: who?\nAnswer:", "choices": ["x", "y", "z", "w", "v"], "gold": 4},
]
_BOOLQ = [
    {"idx": 0, "query": "A -- b -- c\nQuestion: is\n it?\nAnswer:", "choices": ["yes", "no"], "gold": 0},
    {"idx": 1, "query": "É -- 'q'\nQuestion: d\nQuestion: e?\nAnswer:", "choices": ["yes", "no"], "gold": 1},
]
_EXPECTED: dict[str, list[dict[str, Any]]] = {
    "arc-requests": [
        {"id": "q1", "question": "Why?", "choices": {"text": ["a", "b", "c"], "label": list("ABC")}, "answerKey": "C"},
        {
            "id": "q2",
            "question": "Question: who?",
            "choices": {"text": ["x", "y", "z", "w", "v"], "label": list("ABCDE")},
            "answerKey": "E",
        },
    ],
    "boolq-requests": [
        {"question": "is\n it", "answer": True, "passage": "b -- c"},
        {"question": "e", "answer": False, "passage": "'q'\nQuestion: d"},
    ],
    "boolq-titles": [{"idx": 0, "title": "A"}, {"idx": 1, "title": "É"}],
}


@pytest.mark.parametrize("rule", list(_EXPECTED))
def test_requests_become_the_rows_they_were_made_from(tmp_path, rule: str) -> None:
    requests_file(tmp_path / "raw.gz", _ARC if rule == "arc-requests" else _BOOLQ)
    build_rows(spec_for(rule, "raw.gz", _EXPECTED[rule]), tmp_path, tmp_path / "out")
    lines = (tmp_path / "out/toy/train.jsonl").read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == _EXPECTED[rule]
    index = json.loads((tmp_path / "out/index.json").read_text())
    assert index["toy"]["train"]["file"] == "toy/train.jsonl"
    assert index["toy"]["train"]["rows"] == 2


def test_arrow_rows_keep_their_fields_and_their_order(tmp_path) -> None:
    rows = [{"premise": "é \u2028", "idx": 0, "label": 1, "nested": {"text": ["a"], "label": ["1"]}}]
    arrow_file(tmp_path / "raw.arrow", rows)
    build_rows(spec_for("arrow", "raw.arrow", rows), tmp_path, tmp_path / "out")
    assert (tmp_path / "out/toy/train.jsonl").read_text("utf-8") == dumps(rows[0]) + "\n"


def test_rte_takes_the_field_names_of_superglue(tmp_path) -> None:
    arrow_file(tmp_path / "raw.arrow", [{"sentence1": '"a"', "sentence2": "b", "label": 1, "idx": 7}])
    rows = [{"premise": '"a"', "hypothesis": "b", "idx": 7, "label": 1}]
    build_rows(spec_for("arrow-rte", "raw.arrow", rows), tmp_path, tmp_path / "out")


@pytest.mark.parametrize("changes", [{"sha256": "a" * 64}, {"rows": 3}])
def test_rows_that_come_out_otherwise_are_refused(tmp_path, changes: dict[str, Any]) -> None:
    requests_file(tmp_path / "raw.gz", _BOOLQ)
    with pytest.raises(IntegrityError, match="2 rows with SHA-256"):
        build_rows(spec_for("boolq-titles", "raw.gz", _EXPECTED["boolq-titles"], **changes), tmp_path, tmp_path / "out")


@pytest.mark.parametrize("rule", ["arrow", "boolq-requests"])
def test_a_source_of_another_form_is_named(tmp_path, rule: str) -> None:
    with gzip.open(tmp_path / "raw", "wt") as file:
        file.write('{"doc": {"idx": 1}}\n')
    with pytest.raises(AssetError, match=rf"toy: raw.*{rule}.*asset-not-converted"):
        build_rows(spec_for(rule, "raw", []), tmp_path, tmp_path / "out")
