"""Load a causal language model and its tokenizer, and make sure that they can be trained and scored."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from safetensors import SafetensorError

from optaware.assets import quiet_transformers
from optaware.errors import InputError, ModelError, Problem
from optaware.models._memory import is_out_of_memory
from optaware.models._resolve import Place, list_model_names, resolve
from optaware.records import ModelRef

__all__ = ["LoadedModel", "list_model_names", "load_model"]

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_LOCAL: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
"""Everything was resolved to a folder; nothing is asked of the hub here, and no code of a repository is run."""


@dataclass
class LoadedModel:
    """A model ready for use. Only `model` is ever exchanged: by a trainer that wraps it (LoRA).

    Attributes:
        model: The causal language model, in evaluation mode, on `device`.
        tokenizer: Its tokenizer; it has a pad token and pads on the left.
        source: Where the weights came from: `path:…`, `hub:…@commit` or `package:…==version`.
        sha256: Checksum of the weights: of the file, or of the list of checksums when they are sharded.
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
    """Load the model that `ref` names: a local folder, else a hub name (`organisation/model`), else a packaged model.

    Hub names have a slash and packaged names have none, so the two never collide. A model that lies whole in the hub's
    local cache is used without asking the hub; a packaged model is pulled when it is not there. Code of a repository
    is never run, and only safetensors weights are read.

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
    with quiet_transformers():
        config = _read_config(ref, place)
        _check_config(ref, config)
        tokenizer = _read_tokenizer(ref, place)
        model = _read_weights(ref, place, config)
        _check_model(ref, model, tokenizer)
        model.to(target).eval()
    _prepare_tokenizer(tokenizer)
    return LoadedModel(model, tokenizer, place.source, place.sha256, _DTYPES[ref.dtype], target)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        if is_out_of_memory(error):  # the device is there, and full
            raise
        why = str(error).splitlines()[0]
        raise InputError(
            Problem("device-unknown", f"device {name!r}", why, "Choose auto, cpu or a device of this machine.")
        ) from error
    return device


def _read_config(ref: ModelRef, place: Place) -> Any:
    from transformers import AutoConfig

    if not (place.folder / "config.json").is_file():
        adapter = (place.folder / "adapter_config.json").is_file()
        raise InputError(
            Problem(
                "model-without-config",
                ref.name,
                "it has no config.json" + (", only an adapter" if adapter else ""),
                "Give a whole model in Hugging Face layout (config.json, *.safetensors, tokenizer).",
            )
        )
    try:
        return AutoConfig.from_pretrained(place.folder, **_LOCAL)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            Problem("config-unusable", ref.name, _first_line(error), "Correct config.json, or update transformers.")
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
        tokenizer = AutoTokenizer.from_pretrained(place.folder, **_LOCAL)
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
        **_LOCAL,
        "output_loading_info": True,
    }
    try:
        try:
            model, info = AutoModelForCausalLM.from_pretrained(place.folder, attn_implementation="sdpa", **options)
        except ValueError as error:
            if "scaled_dot_product_attention" not in str(error):
                raise
            model, info = AutoModelForCausalLM.from_pretrained(place.folder, **options)
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


def _prepare_tokenizer(tokenizer: Any) -> None:
    tokenizer.padding_side = "left"
    if tokenizer.pad_token_id is not None:
        return
    # Padding is masked, so any token that exists will do.
    token = tokenizer.eos_token or tokenizer.bos_token or tokenizer.unk_token
    tokenizer.pad_token = token if token is not None else tokenizer.convert_ids_to_tokens(0)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:300]
