from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Adapter", "Layer"]


@dataclass(frozen=True)
class Layer:
    """What an adapter adds to one linear layer: `ΔW = scale · b · a`.

    Attributes:
        a: `[r, in]`.
        b: `[out, r]`.
        scale: PEFT's `alpha / r`, or `alpha / √r` with rank stabilisation.
    """

    a: Tensor
    b: Tensor
    scale: float = 1.0

    @property
    def rank(self) -> int:
        """Columns of `b`."""
        return self.b.shape[1]

    @property
    def shape(self) -> tuple[int, int]:
        """`(out, in)` of ΔW."""
        return self.b.shape[0], self.a.shape[1]

    def delta(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """ΔW, `[out, in]`."""
        return self.scale * (self.b.to(dtype) @ self.a.to(dtype))

    def to(self, device: torch.device | str) -> Layer:
        """The same on another device."""
        return Layer(self.a.to(device), self.b.to(device), self.scale)


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter as a set of ΔW.

    Attributes:
        name: What to call it in messages.
        layers: By the name of the base model's module, as `model.layers.0.self_attn.q_proj`.
        base: Name of the base model as the adapter states it; None when it does not.
        base_sha256: Checksum of the base model's weights, where it is known.
        fan_in_fan_out: Whether the base layers keep their weight as `[in, out]` (GPT-2's Conv1D).
        notes: Further plain values, written beside a saved adapter.
    """

    name: str
    layers: Mapping[str, Layer]
    base: str | None = None
    base_sha256: str | None = None
    fan_in_fan_out: bool = False
    notes: Mapping[str, object] = field(default_factory=dict)

    def to(self, device: torch.device | str) -> Adapter:
        """The same on another device."""
        layers = {name: layer.to(device) for name, layer in self.layers.items()}
        return Adapter(self.name, layers, self.base, self.base_sha256, self.fan_in_fan_out, self.notes)
