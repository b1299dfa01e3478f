"""Adapters in PEFT's layout: a folder with `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from optaware._io import make_folder, publish_folder, read_json, write_json
from optaware.errors import InputError, ProblemList
from optaware.train._tensor_errors import tensor_errors
from optaware.train.merging._adapter import Adapter, Layer

__all__ = ["read_adapter", "write_adapter"]

_KEY = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])\.weight$")
_REFUSED = {
    "use_dora": "DoRA scales the whole weight, so what it adds is no ΔW that could be averaged",
    "lora_bias": "it also trains biases of the adapter",
    "use_qalora": "it is made for quantised base weights",
    "modules_to_save": "it replaces whole modules, which have no ΔW",
    "trainable_token_indices": "it also trains token embeddings",
    "target_parameters": "it adapts parameters that are no layers",
    "layer_replication": "it changes the model's layers",
    "alora_invocation_tokens": "it is active from a token on only",
}
"""Options of PEFT with which an adapter is more than ΔW, each with the reason it is refused."""


def read_adapter(folder: Path) -> Adapter:
    """Read a LoRA adapter; ranks and scales are taken per layer (rank and alpha patterns, rank stabilisation).

    `scale = alpha / r`, or `alpha / √r` with `use_rslora`.

    Raises:
        InputError: It is no LoRA adapter, has parts that are no ΔW, or its files do not fit together; all at once.
    """
    problems = ProblemList(str(folder))
    config = _config(folder)
    for key, why in _REFUSED.items():
        if config.get(key):
            problems.add("adapter-unsupported", f"{key}: {config[key]!r}", why, "Merge plain LoRA adapters.")
    if config.get("bias", "none") != "none":
        problems.add(
            "adapter-unsupported", f"bias: {config['bias']!r}", "it also trains biases", "Merge plain LoRA adapters."
        )
    problems.raise_if_any()
    pairs = _pairs(folder, problems)
    layers = {}
    for name, sides in sorted(pairs.items()):
        if set(sides) != {"A", "B"} or sides["A"].shape[0] != sides["B"].shape[1]:
            problems.add("adapter-keys", name, "its A and B do not make a product", "Save the adapter again with PEFT.")
            continue
        layers[name] = _layer(name, sides["A"], sides["B"], config, problems)
    if not pairs and not problems.problems:
        problems.add("adapter-keys", folder.name, "it holds no LoRA weights", "Save the adapter again with PEFT.")
    problems.raise_if_any()
    own = folder / "optaware.json"
    notes = read_json(own) if own.is_file() else {}
    return Adapter(
        name=folder.parent.name if folder.name in ("adapter", "weights") else folder.name,
        layers=layers,
        base=config.get("base_model_name_or_path"),
        base_sha256=notes.get("base_sha256"),
        fan_in_fan_out=bool(config.get("fan_in_fan_out")),
        notes=notes,
    )


def write_adapter(adapter: Adapter, folder: Path) -> None:
    """Write an adapter whole so that PEFT loads it: ranks and scales that differ between layers become patterns.

    `optaware.json` beside it keeps the base model's checksum and how the adapter was made.

    Raises:
        InputError: The folder exists already.
    """
    if folder.exists():
        raise InputError.of("output-exists", str(folder), "it would be overwritten", "Name a new folder.")
    temporary = folder.with_name(f".tmp-{folder.name}")
    with tensor_errors(folder):
        shutil.rmtree(temporary, ignore_errors=True)
        make_folder(temporary)
        tensors = {}
        for name, layer in adapter.layers.items():
            tensors[f"base_model.model.{name}.lora_A.weight"] = layer.a.float().cpu().contiguous()
            tensors[f"base_model.model.{name}.lora_B.weight"] = layer.b.float().cpu().contiguous()
        # A tensor that shares memory with another cannot be saved; identity factors may.
        save_file({key: value.clone() for key, value in tensors.items()}, temporary / "adapter_model.safetensors")
        write_json(temporary / "adapter_config.json", _settings(adapter))
        write_json(temporary / "optaware.json", {**adapter.notes, "version": 1, "base_sha256": adapter.base_sha256})
        publish_folder(temporary, folder)


def _settings(adapter: Adapter) -> dict[str, Any]:
    layers = adapter.layers
    first = next(iter(layers.values()))
    ranks = {_literal(name): layer.rank for name, layer in layers.items() if layer.rank != first.rank}
    alpha = first.scale * first.rank
    alphas = {
        _literal(name): layer.scale * layer.rank
        for name, layer in layers.items()
        if not math.isclose(layer.scale * layer.rank, alpha, rel_tol=1e-12)
    }
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": adapter.base,
        "r": first.rank,
        "lora_alpha": alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": adapter.fan_in_fan_out,
        "inference_mode": True,
        "init_lora_weights": True,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "target_modules": sorted(layers),
        "use_rslora": False,
    }


def _literal(name: str) -> str:
    """PEFT reads the keys of its patterns as regular expressions."""
    return "^" + re.escape(name)


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "adapter_config.json"
    if not path.is_file():
        raise InputError.of(
            "adapter-missing",
            str(folder),
            "it has no adapter_config.json",
            "Name the folder of an adapter saved by PEFT or by a run.",
        )
    config = read_json(path)
    kind = config.get("peft_type") if isinstance(config, dict) else None
    if kind != "LORA":
        raise InputError.of(
            "adapter-unsupported",
            f"peft_type: {kind!r}",
            "only LoRA adapters add a ΔW to linear layers",
            "Merge LoRA adapters.",
            str(path),
        )
    return dict(config)


def _pairs(folder: Path, problems: ProblemList) -> dict[str, dict[str, Tensor]]:
    path = folder / "adapter_model.safetensors"
    if not path.is_file():
        problems.add(
            "adapter-missing", path.name, "there is no such file", "Save the adapter as safetensors.", str(path)
        )
        return {}
    try:
        tensors = load_file(path)
    except SafetensorError as error:
        problems.add("adapter-keys", path.name, f"it cannot be read ({error})", "Save the adapter again.", str(path))
        return {}
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if match := _KEY.match(key):
            pairs.setdefault(match["module"], {})[match["side"]] = tensor
        else:
            problems.add("adapter-unsupported", key, "it is no factor of a linear layer", "Merge plain LoRA adapters.")
    return pairs


def _layer(name: str, a: Tensor, b: Tensor, config: dict[str, Any], problems: ProblemList) -> Layer:
    rank = int(_by_pattern(config.get("rank_pattern") or {}, name, config["r"]))
    alpha = float(_by_pattern(config.get("alpha_pattern") or {}, name, config["lora_alpha"]))
    if rank != a.shape[0]:
        problems.add(
            "adapter-keys",
            f"{name}: rank {a.shape[0]}",
            f"adapter_config.json says {rank}, so its scale is not known",
            "Use the config that belongs to the weights.",
        )
    return Layer(a, b, alpha / (math.sqrt(rank) if config.get("use_rslora") else rank))


def _by_pattern(pattern: dict[str, Any], name: str, default: Any) -> Any:
    """The value of the first key that matches, as PEFT finds it."""
    for key, value in pattern.items():
        if re.match(rf"(.*\.)?({key})$", name):
            return value
    return default
