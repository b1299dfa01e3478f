"""Which parameters a forward-only method trains: all, an adapter, a prefix, a soft prompt, or those of some names.

Published values (Malladi et al., NeurIPS 2023, OPT-13B): all parameters lr 1e-6 or 1e-7, eps 1e-3; LoRA (rank 8, alpha
16) lr 1e-4 or 5e-5, eps 1e-2; prefix (5 tokens) lr 1e-2 or 1e-3, eps 1e-1.
"""

from __future__ import annotations

from fnmatch import fnmatch
from typing import Any

import torch

from optaware.errors import InputError, ModelError, Problem
from optaware.records import FOLoRA, ZerothOrderConfig
from optaware.train._seeds import derive_seed, generator
from optaware.train.firstorder import add_adapter

__all__ = ["choose_parameters"]


def choose_parameters(model: Any, method: ZerothOrderConfig, seed: int) -> Any:
    """The model to train, with `requires_grad` on exactly what the method trains.

    Args:
        model: The base model; for LoRA the adapter layers are put into it.
        method: Says which parameters, and by `include` which of their names.
        seed: The run's seed; adapters and prefixes are drawn from it.

    Returns:
        `model`, or a PEFT model around it.

    Raises:
        InputError: No parameter has a name that `include` lets through.
        ModelError: The model has nothing to train, or a prefix does not fit its layers.
    """
    match method.parameters:
        case "lora":
            model = add_adapter(model, FOLoRA(rank=method.lora_rank, alpha=method.lora_alpha), seed)
        case "prefix":
            model = _add_prefix(model, method.virtual_tokens, seed)
        case "prompt":
            model = _add_prompt(model, method.virtual_tokens, seed)
        case "all":
            pass
    if method.include:
        names = [name for name, each in model.named_parameters() if each.requires_grad]
        kept = {name for name in names if any(fnmatch(name, pattern) for pattern in method.include)}
        if not kept:
            raise InputError.of(
                "include-matches-nothing",
                ", ".join(method.include),
                f"none of the {len(names)} names matches, such as {', '.join(names[:3])}",
                "Correct the patterns (fnmatch: * stands for any text).",
            )
        for name, each in model.named_parameters():
            each.requires_grad_(name in kept)
    if not any(each.requires_grad for each in model.parameters()):
        raise ModelError(
            Problem(
                "nothing-to-train",
                type(model).__name__,
                "none of its parameters has requires_grad",
                "Let some parameters have it, or train an adapter (parameters: lora).",
            )
        )
    return model


def _tokens(model: Any, count: int, seed: int) -> Any:
    vocabulary = model.config.get_text_config().vocab_size
    drawn = torch.randint(0, vocabulary, (1, count), generator=generator(derive_seed(seed, "virtual tokens")))
    return drawn.to(next(model.parameters()).device)


def _add_prefix(model: Any, count: int, seed: int) -> Any:
    """Keys and values of `count` virtual tokens in front of every layer, started as those of real, random tokens."""
    from peft import PrefixTuningConfig

    with torch.no_grad():
        output = model(input_ids=_tokens(model, count, seed), use_cache=True)
    cache = output["cache"] if "cache" in output else output["past_key_values"]  # the former from transformers 5.24 on
    layers = [(layer.keys, layer.values) for layer in cache.layers]
    shapes = {tuple(each.shape[1:]) for pair in layers for each in pair}
    if len(shapes) != 1:
        raise ModelError(
            Problem(
                "prefix-unsupported",
                type(model).__name__,
                "its layers have keys and values of different shapes",
                "Train an adapter instead (parameters: lora).",
            )
        )
    ((heads, _, width),) = shapes
    wrapped = _wrap(
        model,
        PrefixTuningConfig(
            task_type="CAUSAL_LM",
            num_virtual_tokens=count,
            num_layers=len(layers),
            token_dim=heads * width,
            num_attention_heads=heads,
        ),
        seed,
    )
    # PEFT lays a token's row out as (layer, key or value, head, width).
    rows = torch.stack([each[0].transpose(0, 1) for pair in layers for each in pair], dim=1)
    weight = wrapped.prompt_encoder["default"].embedding.weight
    weight.data.copy_(rows.reshape(count, -1))
    return wrapped


def _add_prompt(model: Any, count: int, seed: int) -> Any:
    """`count` embeddings in front of the text, started as those of real, random tokens."""
    from peft import PromptTuningConfig

    with torch.no_grad():
        rows = model.get_input_embeddings()(_tokens(model, count, seed))[0]
    wrapped = _wrap(model, PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=count), seed)
    wrapped.prompt_encoder["default"].embedding.weight.data.copy_(rows)
    return wrapped


def _wrap(model: Any, config: Any, seed: int) -> Any:
    import warnings

    from peft import get_peft_model

    devices = {each.device for each in model.parameters() if each.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)), warnings.catch_warnings():
        # PEFT 0.21 asks transformers 5.23 by a name that is on its way out.
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        torch.manual_seed(derive_seed(seed, "adapter"))
        return get_peft_model(model, config)
