"""Configs of the first-order baselines."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from optaware.records.methods._base import Knob, MethodConfig

__all__ = ["FOFull", "FOLoRA", "ZeroShot"]


class ZeroShot(MethodConfig):
    """No training: the model as it comes, scored on the test rows."""

    name: Literal["zero-shot"] = "zero-shot"

    @property
    def forward_only(self) -> bool:
        """No gradients are needed."""
        return True


class FOFull(MethodConfig):
    """Full fine-tuning by backpropagation with AdamW, constant learning rate."""

    name: Literal["fo-full"] = "fo-full"
    lr: Annotated[float, Knob("learning rate", ("step size",), baseline=(1e-6,)), Field(gt=0)] = 1e-6
    weight_decay: Annotated[float, Knob("weight decay", remove=0.0, baseline=(0.0,)), Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float | None, Knob("gradient clipping", remove=None), Field(gt=0)] = 1.0
    gradient_checkpointing: bool = False


class FOLoRA(MethodConfig):
    """LoRA on all linear layers by backpropagation with AdamW (Hu et al., ICLR 2022), constant learning rate."""

    name: Literal["fo-lora"] = "fo-lora"
    lr: Annotated[float, Knob("learning rate", ("step size",), baseline=(1e-4,)), Field(gt=0)] = 1e-4
    rank: Annotated[int, Knob("LoRA rank", ("r",), baseline=(8,)), Field(ge=1)] = 8
    alpha: Annotated[float, Knob("LoRA alpha", ("scaling",), baseline=(16.0,)), Field(gt=0)] = 16.0
    dropout: Annotated[float, Knob("LoRA dropout", remove=0.0, baseline=(0.0,)), Field(ge=0, lt=1)] = 0.0
    weight_decay: Annotated[float, Knob("weight decay", remove=0.0, baseline=(0.0,)), Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float | None, Knob("gradient clipping", remove=None), Field(gt=0)] = 1.0
