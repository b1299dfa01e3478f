"""LoRA on all linear layers."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from optaware.records import FOLoRA
from optaware.train._seeds import derive_seed
from optaware.train._types import Loss
from optaware.train.firstorder._adamw import AdamWLearner
from optaware.train.firstorder.full import refuse_half

__all__ = ["add_adapter", "lora"]


def add_adapter(model: Any, config: FOLoRA, seed: int) -> Any:
    """Wrap `model` in a PEFT model with fp32 adapters on all linear layers but the output head.

    `y = W·x + (alpha/rank)·B·A·x`, A drawn from the run's seed, B zero. The layers are put into `model` itself, so
    whoever holds it computes with the adapters as well.
    """
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        task_type="CAUSAL_LM",
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules="all-linear",
    )
    devices = {each.device for each in model.parameters() if each.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)), warnings.catch_warnings():
        # PEFT 0.21 asks transformers 5.23 by a name that is on its way out.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        torch.manual_seed(derive_seed(seed, "adapter"))
        return get_peft_model(model, settings)


def lora(model: Any, loss: Loss, config: FOLoRA, seed: int) -> AdamWLearner:
    """The adapters of a PEFT model by AdamW (Hu et al., ICLR 2022).

    Raises:
        InputError: The model's weights are fp16.
    """
    refuse_half(model, config.name)
    return AdamWLearner(
        model,
        loss,
        lr=config.lr,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        seed=seed,
    )
