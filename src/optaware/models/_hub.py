"""A hub name → a folder in the hub's local cache, downloaded when it is not there."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from optaware.assets import quiet_transformers

__all__ = ["ask_for", "cached_snapshot", "snapshot"]

_WANTED = ["*.json", "*.safetensors", "*.model", "*.txt", "*.jinja"]
"""Configs, weights and tokenizers. No code and no pickled weights: what is not there cannot be run."""


def snapshot(name: str, revision: str | None) -> Path:
    """Folder of the model `name` at `revision`; its own name is the commit.

    What lies whole in the local cache is used without asking the hub.

    Raises:
        OSError, ValueError: As the hub's client raises them: no such model or revision, no right to it, no network.
    """
    from huggingface_hub import snapshot_download

    if (folder := cached_snapshot(name, revision)) is not None:
        return folder
    with quiet_transformers():
        return Path(snapshot_download(name, revision=revision, allow_patterns=_WANTED, ignore_patterns=["*/*"]))


def cached_snapshot(name: str, revision: str | None) -> Path | None:
    """Its folder in the local cache; None where it does not lie there whole. Asks nobody."""
    from huggingface_hub import snapshot_download

    with quiet_transformers():
        try:
            folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
        except (OSError, ValueError):
            return None
    return folder if _is_whole(folder) else None


def ask_for(name: str, revision: str | None) -> None:
    """See that the hub gives the model, by its smallest file; nothing is kept.

    Raises:
        OSError, ValueError: As `snapshot`.
    """
    from huggingface_hub import hf_hub_download

    with quiet_transformers(), TemporaryDirectory() as folder:
        hf_hub_download(name, "config.json", revision=revision, cache_dir=folder)


def _is_whole(folder: Path) -> bool:
    """Whether config, tokenizer and all weights are there; a cache may hold single files."""
    if not (folder / "config.json").is_file() or not any(folder.glob("tokenizer*")):
        return False
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_text("utf-8"))
        shards = set(index["weight_map"].values())
    except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError):
        shards = {"model.safetensors"}
    return all((folder / shard).is_file() for shard in shards)
