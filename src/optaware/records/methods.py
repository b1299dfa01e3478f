"""One frozen config per training method; its annotated fields are the method's ablation surface.

A field that can be ablated carries a `Knob` beside its type: what it is in words, other names it goes by, what removing
it means and which values count as the baseline. There is no second list: adding a knob here makes it ablatable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from optaware.records._base import Record

__all__ = ["FOFull", "FOLoRA", "Knob", "MeZO", "Method", "MethodConfig", "ZeroShot", "surface"]


@dataclass(frozen=True)
class Knob:
    """Ablation metadata of one config field.

    Attributes:
        words: What the field is, as a paper would say it.
        aliases: Other names for it.
        remove: The value that stands for "removed"; None where removal has no meaning.
        baseline: The values that count as the method's own choice.
    """

    words: str
    aliases: tuple[str, ...] = ()
    remove: Any = None
    baseline: tuple[Any, ...] = ()


class MethodConfig(Record):
    """Base of all method configs."""

    @property
    def forward_only(self) -> bool:
        """Whether the method runs without backpropagation."""
        return False


class ZeroShot(MethodConfig):
    """No training: the model as it comes, scored on the test rows."""

    name: Literal["zero-shot"] = "zero-shot"

    @property
    def forward_only(self) -> bool:
        """No gradients are needed."""
        return True


class MeZO(MethodConfig):
    """Zeroth-order SGD with a simultaneous-perturbation estimate (Malladi et al., NeurIPS 2023, Algorithm 1).

    `g = (L(θ + eps·z) − L(θ − eps·z)) / (2·eps)`, averaged over `queries` directions; `θ ← θ − lr·g·z`.

    Differs from the paper: `direction="low-rank"` draws `z = U·Vᵀ/√rank` for every matrix, applied inside the forward
    pass, with V redrawn every `refresh_every` steps and the displacement accumulated in fp32 (LOZO: Chen et al., 2025).
    """

    name: Literal["mezo"] = "mezo"
    lr: Annotated[
        float,
        Knob("learning rate", ("step size", "η"), baseline=(1e-6,)),
        Field(gt=0),
    ] = 1e-6
    eps: Annotated[
        float,
        Knob("perturbation scale", ("epsilon", "ε", "δ", "smoothing"), baseline=(1e-3,)),
        Field(gt=0),
    ] = 1e-3
    queries: Annotated[
        int,
        Knob("number of SPSA samples", ("n", "n-SPSA", "directions per step"), baseline=(1,)),
        Field(ge=1),
    ] = 1
    direction: Annotated[
        Literal["gaussian", "low-rank"],
        Knob("distribution of the perturbation z", ("noise", "perturbation distribution"), baseline=("gaussian",)),
    ] = "gaussian"
    rank: Annotated[
        int,
        Knob("rank of the perturbation", ("r",), baseline=(4,)),
        Field(ge=1),
    ] = 4
    refresh_every: Annotated[
        int,
        Knob("steps between new right factors V", ("lazy sampling interval", "ν")),
        Field(ge=1),
    ] = 50
    weight_decay: Annotated[
        float,
        Knob("weight decay", ("L2 regularisation",), remove=0.0, baseline=(0.0,)),
        Field(ge=0),
    ] = 0.0

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


Method = Annotated[ZeroShot | MeZO | FOFull | FOLoRA, Field(discriminator="name")]
"""Any method config; `name` says which."""


def surface(config: type[MethodConfig]) -> dict[str, Knob]:
    """The ablatable fields of a method config, by field name."""
    return {
        name: knob for name, field in config.model_fields.items() for knob in field.metadata if isinstance(knob, Knob)
    }
