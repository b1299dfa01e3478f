"""How large a model is, told without loading it and without a network."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from optaware.errors import InputError, OptawareError
from optaware.records import ModelRef

__all__ = ["ModelSize", "model_size"]

_BILLIONS = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?)\s?([bm])(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class ModelSize:
    """Size of a causal language model.

    Attributes:
        parameters: Number of weights; tied ones once.
        layers: Blocks.
        hidden: Width.
        vocabulary: Tokens of the output layer.
        how: Where the numbers are from: `weights`, `config`, `package` or `name` (a guess).
    """

    parameters: int
    layers: int
    hidden: int
    vocabulary: int
    how: str


def model_size(ref: ModelRef) -> ModelSize | None:
    """Size of `ref` from a folder, the hub's local cache, the packaged asset or, failing these, from its name.

    Returns:
        None when nothing tells it.

    Raises:
        InputError: It is surely not there: no such folder, or neither a hub name nor a packaged model.
    """
    from optaware.assets import asset_path, list_assets

    folder = Path(ref.name).expanduser()
    if folder.is_dir():
        return _of_folder(folder)
    if folder.is_file() or ref.name.startswith(("/", "./", "../", "~")):
        why = "it is a file; a model is a folder" if folder.is_file() else "there is no such folder"
        raise InputError.of("model-unknown", repr(ref.name), why, "Give a folder, a hub name or a packaged model.")
    assets = {asset.name: asset for asset in list_assets()}
    if ref.name in assets:
        if not assets[ref.name].causal_lm:
            why = "this asset is no causal language model"
            raise InputError.of("model-unknown", repr(ref.name), why, "See `optaware assets list`.")
        with suppress(OptawareError):
            if (path := asset_path(ref.name)) and (found := _of_folder(path)):
                return found
        return _shaped(assets[ref.name].bytes // 2, "package")
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", ref.name):
        known = ", ".join(name for name, asset in assets.items() if asset.causal_lm)
        why = "it is no folder, no hub name (`organisation/model`) and no packaged model"
        raise InputError.of("model-unknown", repr(ref.name), why, f"Packaged models: {known}.")
    cached = _cached(ref)
    return (cached and _of_folder(cached)) or _of_name(ref.name)


def _cached(ref: ModelRef) -> Path | None:
    with suppress(Exception):  # whatever the hub's client thinks of its cache, a size is only an estimate
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(ref.name, "config.json", revision=ref.revision)
        return Path(found).parent if isinstance(found, str) else None
    return None


def _of_folder(folder: Path) -> ModelSize | None:
    config: dict[str, Any] = {}
    with suppress(OSError, ValueError, RecursionError):
        said = json.loads((folder / "config.json").read_text("utf-8"))
        config = said if isinstance(said, dict) else {}
    inside = config.get("text_config")
    config = inside if isinstance(inside, dict) and inside else config
    layers, hidden = _int(config, "num_hidden_layers", "n_layer"), _int(config, "hidden_size", "n_embd")
    vocabulary = _int(config, "vocab_size")
    parameters = 0
    for path in folder.glob("*.safetensors"):
        with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            parameters += _in_file(path)
    if parameters:
        return ModelSize(parameters, layers or 1, hidden or 1, vocabulary or 1, "weights")
    if not (layers and hidden and vocabulary):
        return None
    inner = _int(config, "intermediate_size", "n_inner") or 4 * hidden
    heads = _int(config, "num_attention_heads", "n_head") or 1
    shared = (_int(config, "num_key_value_heads") or heads) / heads
    gated = 3 if config.get("hidden_act", "silu") in ("silu", "swish", "gelu_pytorch_tanh") else 2
    block = hidden * hidden * (2 + 2 * shared) + gated * hidden * inner
    ends = vocabulary * hidden * (1 if config.get("tie_word_embeddings") else 2)
    return ModelSize(int(layers * block + ends), layers, hidden, vocabulary, "config")


_LONGEST_HEADER = 100_000_000
"""As the safetensors library has it."""


def _in_file(path: Path) -> int:
    """Numbers in a safetensors file, by its header alone."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > _LONGEST_HEADER:
            raise ValueError(f"a header of {length} bytes")
        header = json.loads(file.read(length))
    return sum(prod(entry["shape"]) for name, entry in header.items() if name != "__metadata__")


def _int(config: dict[str, Any], *names: str) -> int | None:
    return next((int(config[name]) for name in names if isinstance(config.get(name), int)), None)


def _of_name(name: str) -> ModelSize | None:
    found = _BILLIONS.findall(name.rsplit("/", 1)[-1].replace("-", " ").replace("_", " "))
    if not found:
        return None
    number, unit = found[0]
    return _shaped(int(float(number) * (1e9 if unit.lower() == "b" else 1e6)), "name")


def _shaped(parameters: int, how: str) -> ModelSize:
    """Layers and width as models of this size usually have them: P ≈ 12·layers·hidden², hidden ≈ 64·layers or more."""
    hidden = max(64, round((parameters / 12 * 85) ** (1 / 3) / 64) * 64)
    return ModelSize(parameters, max(1, round(parameters / (12 * hidden**2))), hidden, 64_000, how)
