"""Load a causal language model and its tokenizer, and make sure that they can be trained and scored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError

from optaware.assets import quiet_transformers
from optaware.errors import InputError, ModelError, Problem
from optaware.models._resolve import Place, list_model_names, near_names, resolve
from optaware.records import ModelRef

__all__ = ["LoadedModel", "list_model_names", "load_model"]

T = TypeVar("T")
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class LoadedModel:
    """A model ready for use. Only `model` is ever exchanged: by a trainer that wraps it (LoRA).

    Attributes:
        model: The causal language model, in evaluation mode, on `device`.
        tokenizer: Its tokenizer; it has a pad token and pads on the left.
        source: Where the weights came from: `path:…`, `hub:…@commit` or `package:…==version`.
        sha256: Checksum of the weights file; None for the hub, where the commit says which they are.
        dtype: Precision of the weights.
        device: Where the weights are.
    """

    model: Any
    tokenizer: Any
    source: str
    sha256: str | None
    dtype: torch.dtype
    device: torch.device


def load_model(ref: ModelRef, *, device: str = "auto") -> LoadedModel:
    """Load the model that `ref` names: a local folder, else a packaged model, else a model on the hub.

    A packaged model is pulled first when it is not there. Hub names are `organisation/model`, so they never collide
    with packaged names. On the hub, files already in its local cache are used without asking; code of the
    repository is never run, and only safetensors weights are read.

    Args:
        ref: Name, revision (hub only) and precision.
        device: `auto` (CUDA when there is one, else CPU), `cpu`, `cuda`, `cuda:1`, …

    Raises:
        InputError: Unknown name, a folder without `config.json`, a device that is not there.
        ModelError: No tokenizer, no safetensors weights, quantised, incomplete or damaged weights, no causal
            language model, a tokenizer with more tokens than the model.
        AssetError, IntegrityError, StorageError: A packaged model cannot be pulled.
    """
    target = _device(device)
    place = resolve(ref)
    if not place.on_hub and not (Path(place.location) / "config.json").is_file():
        adapter = (Path(place.location) / "adapter_config.json").is_file()
        raise InputError(
            Problem(
                "model-without-config",
                ref.name,
                "the folder has no config.json" + (", only an adapter" if adapter else ""),
                "Give the folder of a whole model in Hugging Face layout (config.json, *.safetensors, tokenizer).",
            )
        )
    with quiet_transformers():
        config = _read_config(ref, place)
        _check_config(ref, config)
        tokenizer = _read_tokenizer(ref, place)
        model = _read_weights(ref, place, config)
        _check_model(ref, model, tokenizer)
        model.to(target).eval()
    _prepare_tokenizer(ref, tokenizer)
    commit = getattr(config, "_commit_hash", None)
    source = f"{place.source}@{commit}" if place.on_hub and commit else place.source
    return LoadedModel(model, tokenizer, source, place.sha256, _DTYPES[ref.dtype], target)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        why = str(error).splitlines()[0]
        raise InputError(
            Problem("device-unknown", f"device {name!r}", why, "Choose auto, cpu or a device of this machine.")
        ) from error
    return device


def _from_pretrained(load: Callable[..., T], place: Place, **options: Any) -> T:
    """Call a `from_pretrained`; on the hub, first with what is in its local cache."""
    if not place.on_hub:
        return load(place.location, local_files_only=True, **options)
    try:
        return load(place.location, revision=place.revision, local_files_only=True, **options)
    except (OSError, ValueError):
        return load(place.location, revision=place.revision, **options)


def _read_config(ref: ModelRef, place: Place) -> Any:
    from transformers import AutoConfig

    try:
        return _from_pretrained(AutoConfig.from_pretrained, place, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        why = _first_line(error)
        if place.on_hub:
            raise InputError(
                Problem(
                    "model-unknown",
                    repr(ref.name),
                    f"there is no such folder, and the hub has it not or cannot be reached ({why})",
                    near_names(ref.name),
                )
            ) from error
        raise ModelError(
            Problem("config-unusable", ref.name, why, "Correct config.json, or update transformers.")
        ) from error


def _check_config(ref: ModelRef, config: Any) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if getattr(config, "quantization_config", None) is not None:
        raise ModelError(
            Problem(
                "weights-quantised",
                ref.name,
                "its weights are quantised, so a small step along a direction cannot be added to them",
                "Use the model's unquantised weights.",
            )
        )
    architectures = getattr(config, "architectures", None) or []
    known = config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
    if not known or (
        architectures and not any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures)
    ):
        raise ModelError(
            Problem(
                "not-a-causal-lm",
                ref.name,
                f"it is a {', '.join(architectures) or config.model_type}, not a causal language model",
                "Choose a model that generates text from left to right.",
            )
        )


def _read_tokenizer(ref: ModelRef, place: Place) -> Any:
    from transformers import AutoTokenizer

    why = "its tokenizer turns text into nothing"
    try:
        tokenizer = _from_pretrained(AutoTokenizer.from_pretrained, place, trust_remote_code=False)
        if tokenizer("a", add_special_tokens=False)["input_ids"]:
            return tokenizer
    # Broken tokenizer files surface as whatever the Rust side raises, a plain Exception included.
    except Exception as error:
        why = _first_line(error)
    raise ModelError(
        Problem(
            "tokenizer-missing",
            ref.name,
            f"it has no tokenizer that can be used ({why})",
            "Put the tokenizer's files (tokenizer.json, tokenizer_config.json) beside the weights.",
        )
    )


def _read_weights(ref: ModelRef, place: Place, config: Any) -> Any:
    from transformers import AutoModelForCausalLM

    options = {
        "config": config,
        "dtype": _DTYPES[ref.dtype],
        "use_safetensors": True,
        "trust_remote_code": False,
        "output_loading_info": True,
    }
    try:
        try:
            model, info = _from_pretrained(
                AutoModelForCausalLM.from_pretrained, place, attn_implementation="sdpa", **options
            )
        except ValueError as error:
            if "scaled_dot_product_attention" not in str(error):
                raise
            model, info = _from_pretrained(AutoModelForCausalLM.from_pretrained, place, **options)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            Problem(
                "weights-unusable",
                ref.name,
                _first_line(error),
                "Give whole *.safetensors weights that belong to config.json; other formats are not read.",
            )
        ) from error
    for fault, keys in (("lack", info["missing_keys"]), ("do not have the shape of", info["mismatched_keys"])):
        if keys:
            names = sorted(str(key) for key in keys)
            raise ModelError(
                Problem(
                    "weights-incomplete",
                    ref.name,
                    f"the weights {fault} {len(names)} of the model's parameters ({', '.join(names[:3])} …), "
                    "which would be drawn at random",
                    "Give weights that belong to config.json.",
                )
            )
    return model


def _check_model(ref: ModelRef, model: Any, tokenizer: Any) -> None:
    meta = [
        name for name, tensor in chain(model.named_parameters(), model.named_buffers()) if tensor.device.type == "meta"
    ]
    if meta:
        raise ModelError(
            Problem(
                "weights-on-meta",
                ref.name,
                f"{len(meta)} tensors have no values ({', '.join(meta[:3])} …)",
                "Load the model whole, without offloading.",
            )
        )
    rows = model.get_input_embeddings().weight.shape[0]
    if len(tokenizer) > rows:
        raise ModelError(
            Problem(
                "vocabulary-mismatch",
                ref.name,
                f"its tokenizer has {len(tokenizer)} tokens, the model only {rows}",
                "Use the tokenizer that the model was made with.",
            )
        )


def _prepare_tokenizer(ref: ModelRef, tokenizer: Any) -> None:
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is not None:
        return
    # Padding is masked, so any token that exists will do.
    token = tokenizer.eos_token or tokenizer.bos_token or tokenizer.unk_token
    tokenizer.pad_token = token if token is not None else tokenizer.convert_ids_to_tokens(0)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]
