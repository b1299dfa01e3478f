"""Run a model as if an adapter had been added to its weights, without touching them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from optaware.errors import InputError
from optaware.models import unwrap
from optaware.train.merging._adapter import Adapter

__all__ = ["applied", "gated", "zeroed"]


@contextmanager
def applied(model: nn.Module, adapter: Adapter) -> Iterator[None]:
    """Within the block, each adapted layer computes `W·x + ΔW·x`, with ΔW·x in fp32.

    Args:
        model: The base model, bare or wrapped by PEFT; adapters that PEFT has in it stay active (see `zeroed`).
        adapter: On the model's device.

    Raises:
        InputError: The model has no such layer, or one of another shape.
    """
    with ExitStack() as stack:
        for name, layer in adapter.layers.items():
            stack.callback(_hook(model, name, layer.a.float(), layer.b.float() * layer.scale, None).remove)
        yield


@contextmanager
def gated(model: nn.Module, adapters: Sequence[Adapter], weights: Tensor) -> Iterator[None]:
    """Within the block the model computes with `Σ w_i ΔW_i`, differentiable in the weights.

    Args:
        model: As for `applied`.
        adapters: The experts, with the same layers each, on the model's device.
        weights: `[N]`.
    """
    with ExitStack() as stack:
        for name in adapters[0].layers:
            layers = [adapter.layers[name] for adapter in adapters]
            a = torch.cat([layer.a.float() for layer in layers])
            b = torch.cat([layer.b.float() * layer.scale for layer in layers], dim=1)
            ranks = torch.tensor([layer.rank for layer in layers], device=a.device)
            stack.callback(_hook(model, name, a, b, (weights.to(a.device), ranks)).remove)
        yield


@contextmanager
def zeroed(model: nn.Module) -> Iterator[None]:
    """Within the block the adapter that PEFT has in the model adds nothing; afterwards it is what it was."""
    kept: Mapping[str, Tensor] = {
        name: parameter.detach().clone() for name, parameter in model.named_parameters() if ".lora_B." in name
    }
    parameters = dict(model.named_parameters())
    with torch.no_grad():
        for name in kept:
            parameters[name].zero_()
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in kept.items():
                parameters[name].copy_(value)


def _hook(model: nn.Module, name: str, a: Tensor, b: Tensor, gates: tuple[Tensor, Tensor] | None) -> Any:
    layer = _layer(model, name, (b.shape[0], a.shape[1]))

    def add(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        hidden = inputs[0].float() @ a.T
        if gates is not None:
            hidden = hidden * torch.repeat_interleave(gates[0], gates[1])
        total: Tensor = output + (hidden @ b.T).to(output.dtype)
        return total

    return layer.register_forward_hook(add)


def _layer(model: nn.Module, name: str, shape: tuple[int, int]) -> nn.Module:
    try:
        module: Any = unwrap(model).get_submodule(name)
    except AttributeError:
        raise InputError.of(
            "adapter-base-differs",
            name,
            "the model has no such layer",
            "Use the base model that the adapter was made for.",
        ) from None
    module = getattr(module, "base_layer", module)
    weight = tuple(module.weight.shape)
    if shape not in (weight, weight[::-1]):
        raise InputError.of(
            "adapter-base-differs",
            f"{name}: ΔW of shape {list(shape)}",
            f"the model's layer has the shape {list(weight)}",
            "Use the base model that the adapter was made for.",
        )
    return module  # type: ignore[no-any-return]
