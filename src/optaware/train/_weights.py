"""The chosen weights as a model folder that Hugging Face libraries load."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from optaware._io import publish_folder
from optaware.train._tensor_errors import tensor_errors

__all__ = ["save_weights"]


def save_weights(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write `folder` whole: `save_pretrained` of the model (the adapter alone for a PEFT model) and of its tokenizer.

    A folder that is already there was finished before and is left alone.
    """
    if folder.is_dir():
        return
    temporary = folder.with_name(f".tmp-{folder.name}")
    with tensor_errors(folder):
        shutil.rmtree(temporary, ignore_errors=True)
        # PEFT would ask the hub for the base model's vocabulary size; adapters here never hold embeddings.
        options = {"save_embedding_layers": False} if hasattr(model, "peft_config") else {}
        model.save_pretrained(temporary, **options)
        tokenizer.save_pretrained(temporary)
        publish_folder(temporary, folder)
