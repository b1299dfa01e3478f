"""The soft prompt as a PEFT prompt-tuning adapter."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from optaware._io import make_folder, publish_folder, write_json
from optaware.train._tensor_errors import tensor_errors

__all__ = ["save_prompt"]


def save_prompt(prompt: Tensor, model: Any, base: str, folder: Path) -> None:
    """Write θ so that `PeftModel.from_pretrained(model, folder)` puts it before every input.

    Args:
        prompt: θ, `[n, d]`.
        model: The base model; its config gives the numbers that PEFT wants.
        base: Name of the base model.
        folder: A folder that is there already was finished before and is left alone.
    """
    if folder.is_dir():
        return
    config = model.config.get_text_config()
    temporary = folder.with_name(f".tmp-{folder.name}")
    with tensor_errors(folder):
        shutil.rmtree(temporary, ignore_errors=True)
        make_folder(temporary)
        save_file(
            {"prompt_embeddings": prompt.detach().float().cpu().contiguous()}, temporary / "adapter_model.safetensors"
        )
        write_json(
            temporary / "adapter_config.json",
            {
                "peft_type": "PROMPT_TUNING",
                "task_type": "CAUSAL_LM",
                "base_model_name_or_path": base,
                "inference_mode": True,
                "num_virtual_tokens": prompt.shape[0],
                "token_dim": prompt.shape[1],
                "num_transformer_submodules": 1,
                "num_attention_heads": config.num_attention_heads,
                "num_layers": config.num_hidden_layers,
                "prompt_tuning_init": "RANDOM",
            },
        )
        publish_folder(temporary, folder)
