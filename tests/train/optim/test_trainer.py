"""Under the unmodified `transformers.Trainer` and `trl.SFTTrainer`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from trainers import ZOTrainer, their_warnings_aside, token_rows, training_arguments
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback, TrainingArguments

from optaware.errors import InputError
from optaware.records import Fast
from optaware.train import ZerothOrder, ZerothOrderMixin


@pytest.fixture(autouse=True)
def their_warnings() -> Iterator[None]:
    with their_warnings_aside():
        yield


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


def trainer(folder: Path, out: Path, cls: Any = ZOTrainer, model: Any = None, **changes: Any) -> Any:
    return cls(
        model=model or load(folder),
        args=TrainingArguments(**training_arguments(out, **changes)),
        train_dataset=token_rows(24, 8),
    )


def weights(model: Any) -> dict[str, Tensor]:
    return {name: each.clone() for name, each in model.state_dict().items()}


def same(one: Any, other: Any) -> bool:
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_the_trainer_takes_the_steps_of_a_plain_loop_to_the_bit(tiny_model_dir: Path, tmp_path: Path) -> None:
    made = trainer(tiny_model_dir, tmp_path, model=(model := load(tiny_model_dir)))
    order = [batch["input_ids"] for batch in made.get_train_dataloader()]
    torch.manual_seed(3)
    made.train()
    plain = load(tiny_model_dir)
    optimizer = ZerothOrder(plain, "fast", lr=1e-3, seed=3)
    seen = []

    class Watch(ZOTrainer):
        def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Tensor:
            seen.append(inputs["input_ids"])
            return super().training_step(model, inputs, num_items_in_batch)

    watched = trainer(tiny_model_dir, tmp_path, Watch)
    watched.train()
    assert len(seen) == len(order) == 6
    for ids in seen:
        items = ids[:, 1:].numel()
        optimizer.estimate(lambda ids=ids, items=items: plain(input_ids=ids, labels=ids, num_items_in_batch=items).loss)
        optimizer.step()
    optimizer.settle()
    assert same(watched.model, plain)
    assert same(model, plain)


def test_accumulation_is_the_large_batch(tiny_model_dir: Path, tmp_path: Path) -> None:
    start = weights(load(tiny_model_dir))
    whole = trainer(tiny_model_dir, tmp_path, max_steps=3, per_device_train_batch_size=8)
    parts = trainer(tiny_model_dir, tmp_path, max_steps=3, per_device_train_batch_size=2, gradient_accumulation_steps=4)
    whole.train()
    parts.train()
    one, other = weights(whole.model), weights(parts.model)
    moved = sum(float((one[name] - start[name]).norm()) for name in one)
    apart = sum(float((one[name] - other[name]).norm()) for name in one)
    assert 0 < apart < 0.05 * moved
    first, second = whole.state.log_history[0], parts.state.log_history[0]
    assert first["loss"] == pytest.approx(second["loss"], rel=1e-4)
    assert second["forward_passes"] == 4


def test_schedules_of_the_method_run_over_the_trainer_s_steps(tiny_model_dir: Path, tmp_path: Path) -> None:
    args = TrainingArguments(**training_arguments(tmp_path, max_steps=-1, num_train_epochs=1, logging_steps=1))
    method = Fast(queries=3, query_schedule="linear", eps_schedule="linear")
    made = ZOTrainer(model=load(tiny_model_dir), args=args, train_dataset=token_rows(16, 8), method=method)
    made.train()
    passes = [row["forward_passes"] for row in made.state.log_history if "loss" in row]
    assert passes == [2, 6, 10, 16]  # 1, 2, 2 and 3 queries
    assert made._zeroth_order._eps == pytest.approx(0.1 * method.eps)


def test_a_loss_of_the_step_before_is_that_of_the_large_batch(tiny_model_dir: Path, tmp_path: Path) -> None:
    """One-point estimates with residual feedback: the parts of a step are compared with those of the step before."""
    probes = []
    for changes in ({"per_device_train_batch_size": 8}, {"gradient_accumulation_steps": 4}):
        args = TrainingArguments(
            **training_arguments(tmp_path, **{"max_steps": 2, "per_device_train_batch_size": 2} | changes)
        )
        method = Fast(estimator="one-point-residual", queries=2)
        made = ZOTrainer(model=load(tiny_model_dir), args=args, train_dataset=token_rows(24, 8), method=method)
        made.train()
        probes.append(made._zeroth_order.probe)
    whole, parts = probes
    assert whole.losses[0][0] == pytest.approx(parts.losses[0][0], rel=1e-5)
    assert any(whole.coefficients)
    assert whole.coefficients == pytest.approx(parts.coefficients, abs=2e-6 / Fast().eps)


@pytest.mark.parametrize("settings", [{}, {"label_smoothing_factor": 0.1}, {"gradient_accumulation_steps": 2}])
def test_both_signs_may_share_a_pass(tiny_model_dir: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    made, rows_seen = [], []
    for batching in ("off", "pairs"):
        model = load(tiny_model_dir)
        seen: list[int] = []
        model.register_forward_pre_hook(
            lambda module, args, inputs, seen=seen: seen.append(len(inputs["input_ids"])), with_kwargs=True
        )
        args = TrainingArguments(**training_arguments(tmp_path, max_steps=3, **settings))
        method = Fast(batching=batching)  # type: ignore[arg-type]
        own = ZOTrainer(model=model, args=args, train_dataset=token_rows(24, 8), method=method)
        own.train()
        made.append((own, weights(model)))
        rows_seen.append(seen[-2:])
    start, (one, two) = weights(load(tiny_model_dir)), made
    moved = sum(float((one[1][name] - start[name]).norm()) for name in start)
    apart = sum(float((one[1][name] - two[1][name]).norm()) for name in start)
    assert moved > 0
    assert apart < 0.05 * moved
    assert one[0].state.log_history[0]["loss"] == pytest.approx(two[0].state.log_history[0]["loss"], rel=1e-4)
    assert rows_seen == [[4, 4], [8, 8]]


def test_a_loss_of_something_else_is_looked_at_point_by_point(tiny_model_dir: Path, tmp_path: Path) -> None:
    class Own(ZOTrainer):
        def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
            return model(**inputs, output_hidden_states=True).hidden_states[-1].square().mean()

    args = TrainingArguments(**training_arguments(tmp_path, max_steps=2))
    made = Own(model=load(tiny_model_dir), args=args, train_dataset=token_rows(8, 8), method=Fast(batching="pairs"))
    with pytest.warns(UserWarning, match="one by one"):
        made.train()
    assert made.state.log_history[0]["forward_passes"] == 4


def test_logs_tell_of_forward_only_steps(tiny_model_dir: Path, tmp_path: Path) -> None:
    made = trainer(tiny_model_dir, tmp_path)
    made.train()
    steps = [row for row in made.state.log_history if "loss" in row]
    assert [row["forward_passes"] for row in steps] == [4, 8, 12]
    assert all(row["projected_gradient"] > 0 and "grad_norm" not in row for row in steps)
    assert all(row["learning_rate"] == 1e-3 for row in steps)


@pytest.mark.parametrize("peft", [False, True])
def test_a_checkpoint_resumes_to_the_same_bits(tiny_model_dir: Path, tmp_path: Path, peft: bool) -> None:
    def model() -> Any:
        bare = load(tiny_model_dir)
        if not peft:
            return bare
        from peft import LoraConfig, get_peft_model

        torch.manual_seed(0)
        return get_peft_model(bare, LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"]))

    settings: dict[str, Any] = {
        "save_strategy": "steps",
        "save_steps": 2,
        "max_steps": 6,
        "lr_scheduler_type": "linear",
    }
    whole = trainer(tiny_model_dir, tmp_path, model=model(), **settings)
    whole.train()
    files = {path.name for path in (tmp_path / "checkpoint-2").iterdir()}
    assert {"optimizer.pt", "scheduler.pt", "trainer_state.json"} <= files
    assert ("adapter_model.safetensors" if peft else "model.safetensors") in files
    again = trainer(tiny_model_dir, tmp_path / "again", model=model(), **settings)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert same(whole.model, again.model)
    assert not same(whole.model, model())
    if not peft:
        saved = AutoModelForCausalLM.from_pretrained(tmp_path / "checkpoint-6")
        assert same(saved, whole.model)


def test_overrides_of_compute_loss_count(tiny_model_dir: Path, tmp_path: Path) -> None:
    calls = []

    class Own(ZOTrainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **kwargs: Any) -> Any:
            calls.append(model.training)
            outputs = model(input_ids=inputs["input_ids"])
            loss = outputs.logits[:, -1].float().logsumexp(-1).mean()
            return (loss, outputs) if return_outputs else loss

    trainer(tiny_model_dir, tmp_path, Own, max_steps=2).train()
    assert calls == [True] * 6


@pytest.mark.parametrize(
    "settings",
    [
        {"bf16": True},
        {"label_smoothing_factor": 0.1},
        {"label_smoothing_factor": 0.1, "gradient_accumulation_steps": 2},
        {"weight_decay": 0.1, "max_grad_norm": 0.0},
    ],
)
def test_flags_of_the_trainer_work(tiny_model_dir: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    made = trainer(tiny_model_dir, tmp_path, max_steps=2, **settings)
    made.train()
    assert made.state.log_history[0]["projected_gradient"] > 0
    assert not same(made.model, load(tiny_model_dir))


def test_evaluation_and_callbacks_see_the_learnt_weights(tiny_model_dir: Path, tmp_path: Path) -> None:
    losses = []

    class Look(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            with torch.no_grad():
                losses.append(float(model(input_ids=token_rows(1, 8)[0]["input_ids"][None]).logits.sum()))

    made = ZOTrainer(
        model=load(tiny_model_dir),
        args=TrainingArguments(
            **training_arguments(
                tmp_path,
                eval_strategy="steps",
                eval_steps=2,
                save_strategy="steps",
                save_steps=2,
                load_best_model_at_end=True,
                learning_rate=0.3,
            )
        ),
        train_dataset=token_rows(24, 8),
        eval_dataset=token_rows(4, 8),
        callbacks=[Look()],
    )
    made.train()
    assert len(set(losses)) == 6
    best = min(row["eval_loss"] for row in made.state.log_history if "eval_loss" in row)
    assert made.evaluate()["eval_loss"] == pytest.approx(best, abs=1e-6)


def test_step_sizes_come_from_one_place(tiny_model_dir: Path, tmp_path: Path) -> None:
    def made(method: Any, **changes: Any) -> float:
        args = TrainingArguments(**{**training_arguments(tmp_path), **changes})
        trainer = ZOTrainer(model=load(tiny_model_dir), args=args, train_dataset=token_rows(4, 8), method=method)
        return float(trainer.create_optimizer().param_groups[0]["lr"])

    assert made(Fast(), learning_rate=5e-5) == Fast().lr
    assert made(Fast(lr=1e-2), learning_rate=5e-5) == 1e-2
    assert made("fast", learning_rate=1e-4) == 1e-4
    with pytest.raises(InputError, match="step-size-twice"):
        made(Fast(lr=1e-2), learning_rate=1e-4)


@pytest.mark.parametrize(
    ("kind", "settings", "batching", "queries"),
    [
        ("full", {}, "pairs", 1),
        ("lora", {"loss_type": "dft"}, "on", 2),
        ("full", {"gradient_accumulation_steps": 2}, "pairs", 1),
    ],
)
def test_points_share_a_pass_under_sft_trainer(
    tiny_model_dir: Path, tmp_path: Path, kind: str, settings: dict[str, Any], batching: Any, queries: int
) -> None:
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    class ZOSFTTrainer(ZerothOrderMixin, SFTTrainer):
        pass

    texts = Dataset.from_list([{"text": f"line {at} of a text, {at * 7 % 5}"} for at in range(16)])
    lora = LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"]) if kind == "lora" else None
    made, rows_seen = [], []
    for choice in ("off", batching):
        model, seen = load(tiny_model_dir), []
        model.get_input_embeddings().register_forward_hook(lambda _, given, out, seen=seen: seen.append(len(out)))
        args = SFTConfig(
            **training_arguments(tmp_path, bf16=False, gradient_checkpointing=False, max_steps=3, **settings)
        )
        torch.manual_seed(0)
        own = ZOSFTTrainer(
            model=model,
            args=args,
            train_dataset=texts,
            processing_class=AutoTokenizer.from_pretrained(tiny_model_dir),
            peft_config=lora,
            method=Fast(batching=choice, queries=queries, rank=2),
        )
        start = weights(own.model)
        own.train()
        made.append(own)
        rows_seen.append(set(seen[-2:]))
    one, two = (weights(each.model) for each in made)
    moved = sum(float((one[name] - start[name]).norm()) for name in start)
    apart = sum(float((one[name] - two[name]).norm()) for name in start)
    assert moved > 0
    assert apart < 0.05 * moved
    assert rows_seen == [{4}, {8 * queries}]
    first, second = (each.state.log_history[0] for each in made)
    for name in ("loss", "entropy", "mean_token_accuracy", "num_tokens"):
        assert first[name] == pytest.approx(second[name], rel=1e-3), name


def test_rows_that_see_other_rows_are_looked_at_point_by_point(tiny_model_dir: Path, tmp_path: Path) -> None:
    model = load(tiny_model_dir)
    # Stands for packed rows: what the model computes for one copy depends on the others.
    model.get_input_embeddings().register_forward_hook(lambda _, given, out: out - out.mean(0) * (len(out) > 4))
    args = TrainingArguments(**training_arguments(tmp_path, max_steps=1))
    made = ZOTrainer(model=model, args=args, train_dataset=token_rows(8, 8), method=Fast(batching="pairs"))
    with pytest.warns(UserWarning, match="one by one"):
        made.train()


@pytest.mark.parametrize("kind", ["full", "lora"])
def test_sft_trainer(tiny_model_dir: Path, tmp_path: Path, kind: str) -> None:
    from datasets import Dataset
    from peft import LoraConfig
    from trl import SFTConfig, SFTTrainer

    class ZOSFTTrainer(ZerothOrderMixin, SFTTrainer):
        pass

    texts = Dataset.from_list([{"text": f"line {at} of a text, {at * 7 % 5}"} for at in range(24)])
    tokenizer = AutoTokenizer.from_pretrained(tiny_model_dir)
    lora = LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"]) if kind == "lora" else None

    def run(out: Path, resume: str | None = None) -> Any:
        settings = training_arguments(out, bf16=False, gradient_checkpointing=False, max_steps=4, save_strategy="steps")
        args = SFTConfig(**settings, save_steps=2, eval_strategy="steps", eval_steps=2)
        torch.manual_seed(0)
        made = ZOSFTTrainer(
            model=load(tiny_model_dir),
            args=args,
            train_dataset=texts,
            eval_dataset=texts.select(range(4)),
            processing_class=tokenizer,
            peft_config=lora,
        )
        made.train(resume_from_checkpoint=resume)
        return made

    whole = run(tmp_path / "whole")
    steps = [row for row in whole.state.log_history if "loss" in row]
    assert all(row["projected_gradient"] > 0 and "mean_token_accuracy" in row for row in steps)
    evaluations = [row for row in whole.state.log_history if "eval_loss" in row]
    assert all("eval_mean_token_accuracy" in row for row in evaluations)
    # Each batch is counted once, though it is looked at several times.
    batches = list(whole.get_train_dataloader())
    tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
    assert steps[-1]["num_tokens"] <= tokens
    again = run(tmp_path / "again", str(tmp_path / "whole" / "checkpoint-2"))
    assert same(whole.model, again.model)
    moved = {name for name, each in whole.model.named_parameters() if each.requires_grad}
    assert moved
    if kind == "full":
        assert not same(whole.model, load(tiny_model_dir))


def test_a_trained_head_is_perturbed_under_trl_too(tiny_model_dir: Path) -> None:
    from trl.trainer.utils import add_fused_lm_head

    from optaware.train.optim._heads import full_head

    model = load(tiny_model_dir).eval()
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    ids = token_rows(1, 8)[0]["input_ids"][None]
    with torch.no_grad():
        theirs = model(input_ids=ids, labels=ids, fused_lm_head=True)
        called = []
        hook = model.lm_head.register_forward_hook(lambda *_: called.append(1))
        with full_head(model):
            ours = model(input_ids=ids, labels=ids, fused_lm_head=True)
        hook.remove()
        assert called
        for name in ("loss", "log_probs", "entropy"):
            torch.testing.assert_close(ours[name], theirs[name], atol=1e-5, rtol=1e-5)
        assert torch.equal(ours["is_top1"], theirs["is_top1"].bool())
        model.lm_head.requires_grad_(False)
        with full_head(model):
            assert type(model(input_ids=ids, labels=ids, fused_lm_head=True)) is type(theirs)
