"""Models with virtual tokens (PEFT prefixes and soft prompts), run with the positions and masks that batches here have.

PEFT's own forward drops position ids, so that a left-padded row would sit at other positions than the same row alone.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from optaware.models._introspect import cache_argument

__all__ = ["run_with_virtual_tokens", "virtual_tokens"]


def virtual_tokens(model: nn.Module) -> int:
    """How many virtual tokens a model puts in front of its input; 0 for all others."""
    config = getattr(model, "active_peft_config", None) if hasattr(model, "peft_config") else None
    return int(config.num_virtual_tokens) if config is not None and config.is_prompt_learning else 0


def run_with_virtual_tokens(model: Any, inputs: dict[str, Any]) -> Any:
    """The base model's output for left-padded rows behind the virtual tokens.

    Args:
        model: A PEFT model for which `virtual_tokens` is not 0.
        inputs: `input_ids`, `attention_mask` (R, L) and, where the model takes them, `position_ids` and others.
    """
    count, core = virtual_tokens(model), model.get_base_model()
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    rows = ids.shape[0]
    changed = {key: value for key, value in inputs.items() if key not in ("input_ids", "use_cache")}
    changed["attention_mask"] = torch.cat([mask.new_ones(rows, count), mask], dim=1)
    prompt = model.get_prompt(rows)
    if isinstance(prompt, Tensor):  # a soft prompt: embeddings before the text's own
        embedded = core.get_input_embeddings()(ids)
        changed["inputs_embeds"] = torch.cat([prompt.to(embedded.dtype), embedded], dim=1)
    else:  # a prefix: keys and values of every layer
        changed |= {"input_ids": ids, cache_argument(core) or "past_key_values": prompt}
    if "position_ids" in inputs:
        positions = inputs["position_ids"] + count
        if isinstance(prompt, Tensor):
            own = torch.arange(count, device=ids.device).expand(rows, count)
            positions = torch.cat([own, positions], dim=1)
        changed["position_ids"] = positions
    return core(**changed)
