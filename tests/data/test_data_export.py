"""Corpora handed on: the same rows in every format, and TRL takes them as they are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optaware._io import read_jsonl, read_yaml
from optaware.data import export_corpus, to_dataset
from optaware.errors import InputError, IntegrityError
from optaware.models import tiny_model
from optaware.records import ChatRequest

MakeBench = Callable[..., Any]


def built(bench: Any) -> Any:
    def reply(request: ChatRequest) -> str:
        words = bench.span(request).split()
        if request.key.startswith("rewrite"):
            return " ".join([words[-1], *words[:-1], "indeed"])
        return "not the same" if request.key.endswith("/1") else "same"

    bench.build(reply)
    return bench


def test_every_format_holds_the_same_rows(every_bench: Any, tmp_path: Path) -> None:
    import pyarrow.parquet as pq
    from datasets import load_from_disk

    made = built(every_bench)
    rows = read_jsonl(export_corpus(made.folder, made.task, tmp_path / "a", format="jsonl"))
    assert len(rows) == len(made.examples)
    assert pq.read_table(export_corpus(made.folder, made.task, tmp_path / "b")).to_pylist() == rows
    path = export_corpus(made.folder, made.task, tmp_path / "c", format="datasets")
    assert load_from_disk(str(path)).to_list() == rows
    for row, example in zip(rows, made.examples, strict=True):
        rendered = made.task.render(example)
        assert row["completion"] == rendered.options[example.label]
        assert (row["prompt"] == rendered.prompt) == example.id.endswith("/1")


def test_rows_in_the_tasks_columns_say_what_became_of_them(bench: MakeBench, tmp_path: Path) -> None:
    made = built(bench("arc-c-cloze"))
    path = export_corpus(made.folder, made.task, tmp_path / "out", style="rows", format="jsonl")
    rows = read_jsonl(path)
    assert [row["outcome"] for row in rows] == ["accepted", "rejected", "accepted", "accepted"]
    assert [row["original"] for row in rows] == [made.task.span_text(example) for example in made.examples]
    assert rows[1]["question"] == rows[1]["original"]
    assert json.loads((tmp_path / "out" / "card.json").read_text())["accepted"] == 3
    page = (tmp_path / "out" / "README.md").read_text()
    front = read_yaml(page.split("---\n")[1])
    assert front["configs"] == [{"config_name": "default", "data_files": "train.jsonl"}]
    assert "example_id" in page
    assert str(tmp_path) not in page


def test_what_cannot_be_exported(bench: MakeBench, tmp_path: Path) -> None:
    made = bench("copa")
    with pytest.raises(InputError, match=r"file-missing|corpus-unfinished"):
        export_corpus(made.folder, made.task, tmp_path / "out")
    built(made)
    with pytest.raises(InputError, match="export-into-itself"):
        export_corpus(made.folder, made.task, made.folder)
    (made.folder / "train.jsonl").write_text("{}\n")
    with pytest.raises(IntegrityError, match="corpus-changed"):
        export_corpus(made.folder, made.task, tmp_path / "out")


@pytest.mark.filterwarnings("ignore")  # other libraries' own deprecations
def test_trl_trains_on_an_export_without_changes(bench: MakeBench, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    made = built(bench("copa"))
    folder = tiny_model(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    args = SFTConfig(
        output_dir=str(tmp_path / "run"),
        max_steps=1,
        per_device_train_batch_size=2,
        report_to=[],
        use_cpu=True,
        bf16=False,
    )
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(folder),
        args=args,
        train_dataset=to_dataset(made.folder, made.task),
        processing_class=tokenizer,
    )
    row = trainer.train_dataset[0]
    rendered = to_dataset(made.folder, made.task)[0]
    assert tokenizer.decode(row["input_ids"], skip_special_tokens=True) == rendered["prompt"] + rendered["completion"]
    # Only the answer is learnt: TRL masks the prompt.
    batch = trainer.data_collator([row])
    learnt = [int(token) for token in batch["labels"][0] if token != -100]
    assert tokenizer.decode(learnt, skip_special_tokens=True) == rendered["completion"]
    assert trainer.train().global_step == 1
