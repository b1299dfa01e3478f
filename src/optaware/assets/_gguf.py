"""GGUF → Hugging Face layout: bfloat16 safetensors, config, tokenizer; one tensor in memory at a time."""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from optaware._io import write_bytes
from optaware.assets._gguf_check import check_gguf
from optaware.assets._quiet import quiet_transformers
from optaware.errors import AssetError, Problem

__all__ = ["convert_gguf"]

_CHUNK = 1 << 22
"""Elements that are dequantised at once: 16 MiB as fp32, and a few times that while at work."""

_COMMON = {
    "token_embd": "model.embed_tokens",
    "output": "lm_head",
    "output_norm": "model.norm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
}
_NAMES = {
    "llama": {**_COMMON, "ffn_norm": "post_attention_layernorm"},
    "qwen2": {**_COMMON, "ffn_norm": "post_attention_layernorm"},
    "gemma3": {
        **_COMMON,
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        "post_attention_norm": "post_attention_layernorm",
        "ffn_norm": "pre_feedforward_layernorm",
        "post_ffw_norm": "post_feedforward_layernorm",
    },
}
"""GGUF's name of a weight → Hugging Face's, for each architecture that can be converted."""


@dataclass(frozen=True)
class _Weight:
    name: str
    shape: tuple[int, ...]
    tensor: Any
    """The tensor's entry in the GGUF file: type, place and size."""
    heads: int | None = None
    """Heads whose rotary halves llama.cpp interleaved."""
    shift: float = 0.0
    """Added to the values; Gemma's norms are stored one too high."""

    @property
    def bytes(self) -> int:
        return 2 * prod(self.shape)


def convert_gguf(gguf: Path, out: Path, *, tied: bool, progress: Callable[[int, int], None] | None = None) -> None:
    """Write `model.safetensors` (bfloat16), config and tokenizer for the model in `gguf`.

    Every weight is dequantised to fp32 and rounded to bfloat16, in pieces, so that memory stays far below the size of
    the model.

    Args:
        gguf: A GGUF file of architecture llama, qwen2 or gemma3.
        out: An existing folder.
        tied: The input and output embeddings are one matrix upstream. Where the file holds two quantised copies of
            it, the finer one (the output's) serves as both, and the model is tied again as its authors made it.
        progress: Called with the bytes of weights written so far and in all.

    Raises:
        AssetError: The file is damaged, or has an architecture or a weight that is not known.
    """
    write_bytes(out / "model.safetensors", _safetensors(gguf, _read_weights(gguf, tied=tied), progress))
    try:
        with quiet_transformers():
            _write_config_and_tokenizer(gguf, out, tied=tied)
    except Exception as error:  # transformers reads what the header says with no checks of its own
        raise _unknown(gguf.name, f"transformers cannot read its config ({type(error).__name__}: {error})") from error


def _read_weights(gguf: Path, *, tied: bool) -> list[_Weight]:
    from gguf import GGUFReader

    check_gguf(gguf)
    try:
        return _weights(GGUFReader(gguf), tied=tied)
    except (KeyError, ValueError, TypeError, IndexError, OverflowError, AttributeError) as error:
        raise _unknown(gguf.name, f"its header is not as expected ({type(error).__name__}: {error})") from error


def _weights(reader: Any, *, tied: bool) -> list[_Weight]:
    architecture = reader.fields["general.architecture"].contents()
    if architecture not in _NAMES:
        raise _unknown(f"architecture {architecture!r}", f"only {', '.join(_NAMES)} can be converted")
    names = _NAMES[architecture]
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    if tied and "output.weight" in tensors:
        tensors["token_embd.weight"] = tensors.pop("output.weight")
    weights = []
    for name, tensor in tensors.items():
        found = re.fullmatch(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)", name)
        if found is None or found[2] not in names:
            raise _unknown(f"weight {name!r}", f"it has no place in a {architecture} model")
        layer = f"model.layers.{found[1]}." if found[1] else ""
        heads = None
        if architecture == "llama" and found[2] in ("attn_q", "attn_k"):
            key = "head_count" if found[2] == "attn_q" else "head_count_kv"
            heads = int(reader.fields[f"llama.attention.{key}"].contents())
            if heads < 1 or int(tensor.shape[-1]) % (2 * heads):
                raise _unknown(f"weight {name!r}", f"its {int(tensor.shape[-1])} rows are not halves of {heads} heads")
        weights.append(
            _Weight(
                name=f"{layer}{names[found[2]]}.{found[3]}",
                shape=tuple(int(size) for size in reversed(tensor.shape)),
                tensor=tensor,
                heads=heads,
                shift=-1.0 if architecture == "gemma3" and found[2].endswith("norm") else 0.0,
            )
        )
    return weights


def _safetensors(gguf: Path, weights: list[_Weight], progress: Callable[[int, int], None] | None) -> Iterator[bytes]:
    """The bytes of a safetensors file, in pieces."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    total = 0
    for weight in weights:
        header[weight.name] = {
            "dtype": "BF16",
            "shape": list(weight.shape),
            "data_offsets": [total, total + weight.bytes],
        }
        total += weight.bytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text)) + text
    done = 0
    for weight in weights:
        yield from _bfloat16(gguf, weight)
        done += weight.bytes
        if progress is not None:
            progress(done, total)


def _bfloat16(gguf: Path, weight: _Weight) -> Iterator[bytes]:
    import numpy as np
    import torch
    from gguf import dequantize

    tensor = weight.tensor
    # Read, not mapped: pages of a mapped file would count as this process's memory.
    raw = np.fromfile(gguf, dtype=np.uint8, count=int(tensor.n_bytes), offset=int(tensor.data_offset))
    rows = raw.reshape(weight.shape[0] if len(weight.shape) > 1 else 1, -1)
    if weight.heads is not None:
        # llama.cpp stores the two halves of each head's rotary dimensions interleaved; a row is quantised by itself,
        # so whole rows can be put back in order before they are dequantised.
        order = np.arange(rows.shape[0]).reshape(weight.heads, -1, 2).swapaxes(1, 2).reshape(-1)
        rows = rows[order]
    step = max(1, _CHUNK // weight.shape[-1])
    for start in range(0, rows.shape[0], step):
        try:
            # A scale that is not finite is told below, by the weight's name; numpy would only warn.
            with np.errstate(all="ignore"):
                values = dequantize(np.ascontiguousarray(rows[start : start + step]), tensor.tensor_type) + weight.shift
        except NotImplementedError as error:
            raise _unknown(
                f"weight {weight.name!r}", f"its type {tensor.tensor_type.name} is not dequantised"
            ) from error
        stored = torch.from_numpy(values.astype(np.float32, copy=False)).to(torch.bfloat16)
        if not stored.isfinite().all():
            raise AssetError(
                Problem(
                    "asset-not-converted",
                    f"weight {weight.name!r}",
                    "it has values that are infinite or no number, so every answer of the model would be",
                    "The file is damaged or was made wrongly: remove it and fetch it again.",
                )
            )
        yield stored.view(torch.int16).numpy().tobytes()


def _write_config_and_tokenizer(gguf: Path, out: Path, *, tied: bool) -> None:
    import torch
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    config = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config.architectures = [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[config.model_type]]
    config.tie_word_embeddings = tied
    config.dtype = torch.bfloat16
    config.name_or_path = ""
    config.save_pretrained(out)
    GenerationConfig.from_model_config(config).save_pretrained(out)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
    tokenizer.model_max_length = config.max_position_embeddings
    tokenizer.save_pretrained(out)


def _unknown(given: str, why: str) -> AssetError:
    return AssetError(Problem("asset-not-converted", given, why, "Report this with the versions of optaware and gguf."))
