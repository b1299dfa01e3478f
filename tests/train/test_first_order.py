from __future__ import annotations

from typing import Any

import pytest
import torch

from optaware.records import FOFull, FOLoRA
from optaware.train._types import StepResult
from optaware.train.firstorder import add_adapter, full, lora


def make(kit: Any, config: FOFull | FOLoRA, model: Any) -> Any:
    scorer = kit.Scorer(model)
    build: Any = full if isinstance(config, FOFull) else lora
    return build(model, lambda batch: scorer.loss(batch, "options"), config, 0)


def test_full_fine_tuning_in_fp32_is_torch_adamw_with_clipping(kit: Any) -> None:
    model, reference = kit.llama(), kit.llama()
    learner = make(kit, FOFull(lr=1e-2, weight_decay=0.1, max_grad_norm=0.5), model)
    parameters = list(reference.parameters())
    optimizer = torch.optim.AdamW(
        [
            {"params": [each for each in parameters if each.ndim > 1], "weight_decay": 0.1},
            {"params": [each for each in parameters if each.ndim == 1], "weight_decay": 0.0},
        ],
        lr=1e-2,
    )
    scorer = kit.Scorer(reference)
    for step in range(1, 5):
        batch = kit.rows(8, seed=step)
        with learner.training():
            result = learner.step(step, [batch])
        optimizer.zero_grad()
        loss = scorer.loss(batch, "options")
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 0.5)
        optimizer.step()
        assert result == StepResult(pytest.approx(loss.item()), 3, False, (), pytest.approx(norm.item()))
        assert norm > 0.5
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-5, atol=1e-6)


def test_updates_below_a_bf16_step_add_up(kit: Any) -> None:
    """At lr 1e-5 no single update changes a bf16 weight near 0.2, two hundred of one sign do."""
    model = kit.llama(torch.bfloat16)
    learner = make(kit, FOFull(lr=1e-5), model)
    weight = model.model.layers[0].mlp.up_proj.weight
    before = weight.data.clone()
    batch = kit.rows(8)
    moved = []
    for step in range(1, 121):
        learner.step(step, [batch])
        moved.append((weight.data != before).float().mean().item())
    assert moved[0] < 0.05
    assert moved[-1] > 0.5


def test_gradients_of_bf16_parts_add_up(kit: Any) -> None:
    norms = []
    for parts in (1, 2, 4):
        learner = make(kit, FOFull(lr=1e-3), kit.llama(torch.bfloat16))
        batch = kit.rows(8)
        size = len(batch) // parts
        norms.append(learner.step(1, [batch[at : at + size] for at in range(0, 8, size)]).grad_norm)
    assert norms == pytest.approx([norms[0]] * 3, rel=0.03)


def test_dropout_depends_on_seed_and_step_and_not_on_the_global_generator(kit: Any) -> None:
    losses: list[list[float | None]] = []
    for outside in (1, 2):
        torch.manual_seed(outside)
        config = FOLoRA(lr=1e-12, rank=2, dropout=0.5)
        model = add_adapter(kit.llama(), config, 0)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.fill_(0.1)  # zero as it comes, which would hide the dropout before it
        learner = make(kit, config, model)
        with learner.training():
            losses.append([learner.step(step, [kit.rows(4)]).loss for step in (1, 2, 1)])
    assert losses[0] == losses[1]
    assert losses[0][0] == losses[0][2] != losses[0][1]


def test_gradient_checkpointing_changes_memory_only(kit: Any) -> None:
    results = []
    for checkpointing in (False, True):
        learner = make(kit, FOFull(lr=1e-3, gradient_checkpointing=checkpointing), kit.llama())
        with learner.training():
            results.append([learner.step(step, [kit.rows(4)]) for step in (1, 2)])
    assert results[0] == results[1]


def test_lora_trains_fp32_adapters_on_all_linear_layers_but_the_head(kit: Any) -> None:
    model = add_adapter(kit.llama(torch.bfloat16), FOLoRA(rank=2), 0)
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    assert len(trained) == 2 * 7 * 2  # layers, linear modules in each, A and B
    assert all(each.dtype == torch.float32 for each in trained.values())
    assert not any("lm_head" in name for name in trained)
