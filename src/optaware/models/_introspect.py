"""What must be known of a Hugging Face model before it is run in an unusual way."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["attention_window", "cache_argument", "evaluating", "forward_arguments", "tolerance", "unwrap"]

_TOLERANCE = {torch.float64: 1e-8, torch.float32: 2e-4, torch.float16: 3e-2, torch.bfloat16: 2e-1}


def unwrap(model: nn.Module) -> Any:
    """The Hugging Face model inside DistributedDataParallel and PEFT wrappers."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        return unwrap(model.module)
    get_base_model = getattr(model, "get_base_model", None)
    return get_base_model() if callable(get_base_model) else model


def forward_arguments(model: nn.Module) -> frozenset[str]:
    """Names of the arguments that the model's `forward` takes."""
    return frozenset(inspect.signature(unwrap(model).forward).parameters)


def cache_argument(model: nn.Module) -> str | None:
    """The argument of `forward` that takes keys and values, `cache` from transformers 5.24 on; None: there is none."""
    arguments = forward_arguments(model)
    return next((name for name in ("cache", "past_key_values") if name in arguments), None)


def tolerance(model: nn.Module) -> float:
    """By how much two ways of computing one log-probability may differ in the model's precision."""
    return _TOLERANCE.get(next(model.parameters()).dtype, 2e-1)


def attention_window(model: nn.Module) -> int | None:
    """Positions within which all layers see everything earlier; None without such a limit.

    A 4D mask or a shared prefix replaces the window of sliding and chunked layers, so longer texts need other means.
    """
    config = unwrap(model).config.get_text_config()
    kinds = getattr(config, "layer_types", None)
    local = kinds is None or any(kind not in (None, "full_attention") for kind in kinds)
    sliding = getattr(config, "sliding_window", None) if getattr(config, "use_sliding_window", True) else None
    limits = [limit for limit in (sliding, getattr(config, "attention_chunk_size", None)) if limit]
    return min(limits) if local and limits else None


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode, without gradients, for a block; each module gets its own mode back."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True
