"""`optaware runs replay`: a run's weights from its base model and its journal."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from optaware.cli import main
from optaware.records import DataRef, Fast, FOFull, Method, ModelRef, Protocol, RunSpec, Schedule
from optaware.store import Store
from optaware.study import train_one

ROOT = Path(__file__).parents[2]


def spec_of(model: Path, method: Method, dtype: Any = "bf16") -> RunSpec:
    return RunSpec(
        model=ModelRef(name=str(model), dtype=dtype),
        data=DataRef(
            task=str(ROOT / "examples" / "tasks" / "ticket_routing.yaml"),
            protocol=Protocol(name="free", train=12, dev=6, test=6),
        ),
        method=method,
        schedule=Schedule(steps=6, batch_size=4, eval_every=2, max_length=128),
        seed=2,
        device="cpu",
    )


@pytest.fixture(scope="module")
def run(tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A store with one finished run, and the run's id."""
    root = tmp_path_factory.mktemp("store")
    spec = spec_of(tiny_model_dir, Fast(lr=1e-3, queries=2, refresh_every=2))
    train_one(spec, Store(root))
    return root, Store(root).run_folder(spec).run_id


def ask(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    threads = torch.get_num_threads()
    capsys.readouterr()
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["optaware", "runs", "replay", *words])
            with pytest.raises(SystemExit) as ended:
                main()
    finally:
        torch.set_num_threads(threads)
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


def test_the_weights_come_back_to_the_bit(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, name = run
    out = tmp_path / "again"
    code, text, _ = ask(capsys, name, "--store", str(store), "--out", str(out), "--json")
    report = json.loads(text)
    assert code == 0
    assert (report["exact"], report["identical"], report["bound"]) == (True, True, 0.0)
    (folder,) = (store / "runs").iterdir()
    kept = load_file(folder / "weights" / "model.safetensors")
    made = load_file(out / "model.safetensors")
    assert kept.keys() == made.keys()
    assert all(torch.equal(kept[key], made[key]) for key in kept)
    assert (out / "tokenizer_config.json").exists()


def test_any_step_can_be_had(run: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, name = run
    made = {}
    for step in (0, 3, 5):
        code, text, _ = ask(
            capsys, name, "--store", str(store), "--step", str(step), "--out", str(tmp_path / str(step))
        )
        assert code == 0
        assert f"weights after step {step}" in text
        made[step] = load_file(tmp_path / str(step) / "model.safetensors")["model.layers.0.mlp.up_proj.weight"]
    assert not torch.equal(made[0], made[3])
    assert not torch.equal(made[3], made[5])


def test_weights_that_were_changed_afterwards_are_told(run: Any, capsys: pytest.CaptureFixture[str]) -> None:
    store, name = run
    (folder,) = (store / "runs").iterdir()
    path = folder / "weights" / "model.safetensors"
    kept = load_file(path)
    try:
        save_file({key: each + (key == "model.norm.weight") for key, each in kept.items()}, path)
        code, text, _ = ask(capsys, name, "--store", str(store))
    finally:
        save_file(kept, path, metadata={"format": "pt"})
    assert code == 1
    assert "differs from the kept weights" in text


def test_what_cannot_be_replayed_is_refused(
    run: Any, tmp_path: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, name = run
    code, _, errors = ask(capsys, name, "--store", str(store), "--step", "7")
    assert code == 2
    assert "the journal holds 6 steps" in errors
    code, _, errors = ask(capsys, name, "--store", str(store), "--out", str(tmp_path))
    assert code == 2
    assert "folder-exists" in errors
    other = Store(tmp_path / "other")
    spec = spec_of(tiny_model_dir, FOFull(), "fp32")
    train_one(spec, other)
    code, _, errors = ask(capsys, other.run_folder(spec).run_id, "--store", str(other.root))
    assert code == 2
    assert "journal-missing" in errors
    journal = next((store / "runs").iterdir()) / "journal.bin"
    whole = journal.read_bytes()
    base = json.loads(whole[12 : int.from_bytes(whole[10:12], "little")])["base"]
    try:
        journal.write_bytes(whole.replace(base.encode(), b"cd" * 32))
        code, _, errors = ask(capsys, name, "--store", str(store))
    finally:
        journal.write_bytes(whole)
    assert code == 1
    assert "it starts from weights cdcdcd" in errors


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
def test_a_journal_file_is_replayed_on_the_model_that_is_named(
    tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from optaware.train import ZerothOrder

    lora = LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["q_proj"])
    for name in ("full", "adapter"):
        model = AutoModelForCausalLM.from_pretrained(tiny_model_dir, dtype=torch.float32)
        path, start, out = (tmp_path / f"{name}-{what}" for what in ("journal.bin", "start", "out"))
        if name == "adapter":
            model = get_peft_model(model, lora)
            model.save_pretrained(start, save_embedding_layers=False)
        ids = torch.arange(12)[None]
        optimizer = ZerothOrder(model, "fast", lr=1e-2, journal=path)
        for _ in range(3):
            optimizer.estimate(lambda model=model, ids=ids: model(input_ids=ids, labels=ids).loss)
            optimizer.step()
        optimizer.close()
        model.save_pretrained(tmp_path / f"{name}-kept", save_embedding_layers=False)
        adapter = ("--adapter", str(start)) if name == "adapter" else ()
        code, text, _ = ask(capsys, str(path), "--model", str(tiny_model_dir), *adapter, "--out", str(out))
        assert code == 0
        assert "bit-identical to the weights that the training ended with" in text
        file = "adapter_model.safetensors" if adapter else "model.safetensors"
        kept, made = load_file(tmp_path / f"{name}-kept" / file), load_file(out / file)
        assert kept.keys() == made.keys()
        assert all(torch.equal(kept[key], made[key]) for key in kept)
    code, _, errors = ask(capsys, str(path), "--model", str(tiny_model_dir))
    assert (code, "journal-foreign" in errors) == (1, True)
    code, _, errors = ask(capsys, str(path), "--model", str(tiny_model_dir), "--dtype", "bf16", *adapter)
    assert (code, "it starts from weights" in errors) == (1, True)
    code, _, errors = ask(capsys, str(path))
    assert (code, "replay-model" in errors) == (2, True)
