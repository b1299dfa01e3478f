"""Full fine-tuning."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from optaware.errors import InputError, Problem
from optaware.records import FOFull
from optaware.train._types import Loss
from optaware.train.firstorder._adamw import AdamWLearner

__all__ = ["full", "refuse_half"]


def refuse_half(model: nn.Module, method: str) -> None:
    """Refuse fp16 weights.

    Raises:
        InputError: Gradients of fp16 activations underflow without loss scaling, which is not done here.
    """
    if any(parameter.dtype == torch.float16 for parameter in model.parameters()):
        raise InputError(
            Problem(
                "method-dtype",
                f"{method} with dtype fp16",
                "gradients in fp16 underflow to zero",
                'Use dtype "bf16" or "fp32" for the model.',
            )
        )


def _checkpoint_activations(model: Any) -> None:
    if hasattr(model, "activation_checkpointing_enable"):  # transformers from 5.23 on
        model.activation_checkpointing_enable({"use_reentrant": False})
    else:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def full(model: Any, loss: Loss, config: FOFull, seed: int) -> AdamWLearner:
    """All parameters by AdamW on fp32 master weights (see `AdamWLearner`).

    Raises:
        InputError: The model's weights are fp16.
    """
    refuse_half(model, config.name)
    if config.gradient_checkpointing:
        _checkpoint_activations(model)
    return AdamWLearner(
        model,
        loss,
        lr=config.lr,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        seed=seed,
        call_because="activations are computed twice" if config.gradient_checkpointing else None,
    )
