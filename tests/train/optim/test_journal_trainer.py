"""The journal that the mixin keeps under `transformers.Trainer` and `trl.SFTTrainer`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from trainers import ZOTrainer, their_warnings_aside, token_rows, training_arguments
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, TrainingArguments

from optaware.records import FZOO, Fast, MeZO
from optaware.train import ZerothOrderMixin, journal_probes, read_journal, replay


@pytest.fixture(autouse=True)
def their_warnings() -> Iterator[None]:
    with their_warnings_aside():
        yield


class Killed(Exception):
    pass


class KilledAfter(TrainerCallback):
    """Stops the process, as far as files go, after a step: what is written to the journal later is taken back."""

    def __init__(self, step: int, journal: Path) -> None:
        self.step, self.journal, self.held = step, journal, b""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.held = self.journal.read_bytes()
            raise Killed


LORA = LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"])
SETTINGS: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (Fast(rank=2), {}),
    "queries-accumulated": (Fast(rank=2, queries=3), {"gradient_accumulation_steps": 2, "weight_decay": 0.1}),
    "batched-cosine": (Fast(batching="pairs"), {"lr_scheduler_type": "cosine", "warmup_steps": 2}),
    "schedules": (Fast(queries=3, query_schedule="linear", eps_schedule="linear"), {"lr_scheduler_type": "linear"}),
    "dense-bf16": (MeZO(), {"lr_scheduler_type": "linear"}),
    "residual": (Fast(estimator="one-point-residual", queries=2), {"gradient_accumulation_steps": 2}),
    "lora": (FZOO(queries=2), {"lr_scheduler_type": "linear"}),
}


def load(folder: Path, name: str = "plain") -> Any:
    bare = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16 if "bf16" in name else torch.float32)
    if name != "lora":
        return bare
    torch.manual_seed(0)
    return get_peft_model(bare, LORA)


def made(folder: Path, out: Path, name: str = "plain", callbacks: Any = None, **changes: Any) -> Any:
    method, settings = SETTINGS[name]
    return ZOTrainer(
        model=load(folder, name),
        args=TrainingArguments(**training_arguments(out, per_device_train_batch_size=2, **settings, **changes)),
        train_dataset=token_rows(24, 6),
        eval_dataset=token_rows(4, 6),
        method=method,
        callbacks=callbacks,
    )


def same(one: Any, other: Any) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_journal_is_the_training_and_a_checkpoint_cuts_it_back(
    tiny_model_dir: Path, tmp_path: Path, name: str
) -> None:
    looks = {"eval_strategy": "steps", "eval_steps": 3, "save_strategy": "steps", "save_steps": 4}
    whole = made(tiny_model_dir, tmp_path, name, **looks)
    whole.train()
    path = tmp_path / "journal.bin"
    written = path.read_bytes()
    again = replay(path, load(tiny_model_dir, name))
    assert (again.step, again.exact, again.identical) == (6, True, True)
    assert same(again.model, whole.model)
    assert not same(again.model, load(tiny_model_dir, name))
    rates = {probe.step: probe.lr for probe in journal_probes(path)}
    logged = {row["step"]: row["learning_rate"] for row in whole.state.log_history if "loss" in row}
    assert all(rates[step] == rate for step, rate in logged.items())
    if name != "lora":
        saved = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-4", dtype="auto")
        assert same(replay(path, load(tiny_model_dir, name), upto=4).model, saved)
    path.write_bytes(written + b"xx")
    resumed = made(tiny_model_dir, tmp_path, name, **looks)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert same(resumed.model, whole.model)
    assert path.read_bytes() == written
    elsewhere = made(tiny_model_dir, tmp_path / "other", name, **looks)
    elsewhere.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert (tmp_path / "other" / "journal.bin").read_bytes() == written


@pytest.mark.parametrize("name", ["plain", "queries-accumulated", "dense-bf16", "lora"])
def test_without_a_checkpoint_the_journal_is_resumed_from(tiny_model_dir: Path, tmp_path: Path, name: str) -> None:
    looks = {"eval_strategy": "steps", "eval_steps": 3}
    whole = made(tiny_model_dir, tmp_path / "whole", name, **looks)
    whole.train()
    path = tmp_path / "parts" / "journal.bin"
    kill = KilledAfter(5, path)
    with pytest.raises(Killed):
        made(tiny_model_dir, tmp_path / "parts", name, [kill], **looks).train()
    path.write_bytes(kill.held)
    calls: list[int] = []
    parts = made(tiny_model_dir, tmp_path / "parts", name, **looks)
    parts.model.register_forward_pre_hook(lambda module, args: calls.append(module.training))
    parts.train(resume_from_checkpoint=True)
    assert same(parts.model, whole.model)
    assert path.read_bytes() == (tmp_path / "whole" / "journal.bin").read_bytes()
    logs = {row["step"]: row for row in parts.state.log_history if "forward_passes" in row}
    assert [("loss" in row, row.get("repeated_steps")) for row in logs.values()] == [(False, 2), (False, 4), (False, 5)]
    assert logs[6]["forward_passes"] == [row for row in whole.state.log_history if "loss" in row][-1]["forward_passes"]


def test_a_training_begun_anew_keeps_the_journal_of_the_one_before(tiny_model_dir: Path, tmp_path: Path) -> None:
    first = made(tiny_model_dir, tmp_path, max_steps=2)
    first.train()
    held = (tmp_path / "journal.bin").read_bytes()
    made(tiny_model_dir, tmp_path, max_steps=3).train()
    assert (tmp_path / "journal-1.bin").read_bytes() == held
    assert len(read_journal(tmp_path / "journal.bin")[1]) == 3
    silent = made(tiny_model_dir, tmp_path / "silent", max_steps=1)
    silent._keeps_journal = False
    silent.train()
    assert not (tmp_path / "silent" / "journal.bin").exists()


def test_the_best_weights_can_be_had_by_their_step(tiny_model_dir: Path, tmp_path: Path) -> None:
    looks = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
    best = made(tiny_model_dir, tmp_path, load_best_model_at_end=True, **{**looks, "learning_rate": 0.3})
    best.train()
    step = int(best.state.best_model_checkpoint.rsplit("-", 1)[1])
    assert same(replay(tmp_path / "journal.bin", load(tiny_model_dir), upto=step).model, best.model)
    assert replay(tmp_path / "journal.bin", load(tiny_model_dir)).identical


def test_a_checkpoint_without_a_journal_is_gone_on_from_without_one(tiny_model_dir: Path, tmp_path: Path) -> None:
    saves = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    silent = made(tiny_model_dir, tmp_path, **saves)
    silent._keeps_journal = False
    silent.train()
    resumed = made(tiny_model_dir, tmp_path, **saves)
    with pytest.warns(UserWarning, match="not written any further"):
        resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert same(resumed.model, silent.model)
    assert not (tmp_path / "journal.bin").exists()


def test_under_sft_trainer_with_an_adapter(tiny_model_dir: Path, tmp_path: Path) -> None:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    class ZOSFTTrainer(ZerothOrderMixin, SFTTrainer):
        pass

    texts = Dataset.from_list([{"text": f"line {at} of a text, {at * 7 % 5}"} for at in range(16)])
    looks = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2, "max_steps": 3}
    args = SFTConfig(
        **training_arguments(tmp_path, per_device_train_batch_size=2, bf16=False, gradient_checkpointing=False, **looks)
    )
    trainer = ZOSFTTrainer(
        model=load(tiny_model_dir),
        args=args,
        train_dataset=texts,
        eval_dataset=texts.select(range(2)),
        processing_class=AutoTokenizer.from_pretrained(tiny_model_dir),
        peft_config=LORA,
    )
    trainer.model.save_pretrained(tmp_path / "start")
    trainer.train()
    start = PeftModel.from_pretrained(load(tiny_model_dir), tmp_path / "start")
    again = replay(tmp_path / "journal.bin", start)
    assert (again.step, again.exact, again.identical) == (3, True, True)
    assert same(again.model, trainer.model)
