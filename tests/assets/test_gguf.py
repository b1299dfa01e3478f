from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from optaware.assets import _gguf
from optaware.assets._gguf import convert_gguf
from optaware.errors import AssetError
from optaware.models import tiny_model

_TO_GGUF = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def gguf_name(name: str) -> str:
    if name == "model.embed_tokens.weight":
        return "token_embd.weight"
    if name == "model.norm.weight":
        return "output_norm.weight"
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{_TO_GGUF[rest.removesuffix('.weight')]}.weight"


def interleave(weight: np.ndarray, heads: int) -> np.ndarray:
    """What llama.cpp's converter does to the queries and keys of a Llama model."""
    return (
        weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
    )


def write_llama(path: Path, weights: dict[str, torch.Tensor]) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(2048)
    writer.add_embedding_length(32)
    writer.add_feed_forward_length(64)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(8)
    writer.add_vocab_size(264)
    alphabet = sorted(chr(char) for char in {*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)})
    writer.add_tokenizer_model("gpt2")
    words = [*alphabet, "ab"]
    writer.add_token_list([*words, *(f"<|{n}|>" for n in range(264 - len(words)))])
    writer.add_token_types([1] * len(words) + [3] * (264 - len(words)))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(257)
    writer.add_eos_token_id(258)
    writer.add_add_bos_token(False)
    writer.add_chat_template("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    for name, tensor in weights.items():
        array = tensor.float().numpy()
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            array = interleave(array, 4 if "q_proj" in name else 2)
        writer.add_tensor(gguf_name(name), np.ascontiguousarray(array))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_model_comes_back_from_gguf_as_it_was(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(_gguf, "_CHUNK", 7 * 32)  # several pieces, the last one shorter
    source = load_file(tiny_model(tmp_path / "tiny") / "model.safetensors")
    write_llama(tmp_path / "model.gguf", source)
    out = tmp_path / "out"
    out.mkdir()
    told: list[tuple[int, int]] = []
    convert_gguf(tmp_path / "model.gguf", out, tied=True, progress=lambda done, total: told.append((done, total)))

    weights = load_file(out / "model.safetensors")
    assert set(weights) == set(source)
    for name, tensor in source.items():
        assert torch.equal(weights[name], tensor.to(torch.bfloat16)), name
    assert told[-1] == (sum(2 * tensor.numel() for tensor in source.values()),) * 2

    model, info = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert model.dtype == torch.bfloat16
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    tokenizer = AutoTokenizer.from_pretrained(out)
    text = "Hé 漢字\n\t x  cab <|0|>"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.apply_chat_template([{"role": "user", "content": "q"}], tokenize=False) == "q"
    assert tokenizer.model_max_length == 2048


def small(path: Path, architecture: str, tensors: dict[str, Any]) -> list[_gguf._Weight]:
    writer = gguf.GGUFWriter(path, architecture)
    for name, (array, kind) in tensors.items():
        data = gguf.quantize(array, kind)
        writer.add_tensor(name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return _gguf._weights(gguf.GGUFReader(path), tied=True)


def values(path: Path, weight: _gguf._Weight) -> torch.Tensor:
    raw = b"".join(_gguf._bfloat16(path, weight))
    return torch.frombuffer(bytearray(raw), dtype=torch.bfloat16).reshape(weight.shape)


def test_of_two_copies_of_a_tied_embedding_the_output_serves_as_both(tmp_path) -> None:
    coarse, fine = np.full((4, 32), 2.0, np.float32), np.full((4, 32), 3.0, np.float32)
    kinds = gguf.GGMLQuantizationType
    weights = small(
        tmp_path / "m.gguf",
        "qwen2",
        {"output.weight": (fine, kinds.F32), "token_embd.weight": (coarse, kinds.Q8_0)},
    )
    assert [weight.name for weight in weights] == ["model.embed_tokens.weight"]
    assert values(tmp_path / "m.gguf", weights[0]).eq(3).all()


def test_quantised_rows_are_dequantised(tmp_path) -> None:
    array = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    kind = gguf.GGMLQuantizationType.Q8_0
    [weight] = small(tmp_path / "m.gguf", "qwen2", {"blk.3.ffn_up.weight": (array, kind)})
    assert weight.name == "model.layers.3.mlp.up_proj.weight"
    expected = torch.from_numpy(gguf.dequantize(gguf.quantize(array, kind), kind)).to(torch.bfloat16)
    assert torch.equal(values(tmp_path / "m.gguf", weight), expected)
    assert (expected.float() - torch.from_numpy(array)).abs().max() < 0.05


def test_gemma_norms_are_stored_one_too_high(tmp_path) -> None:
    ones, kind = np.ones(32, np.float32), gguf.GGMLQuantizationType.F32
    names = ["output_norm", "blk.0.attn_norm", "blk.0.attn_q_norm", "blk.0.post_ffw_norm"]
    weights = small(tmp_path / "m.gguf", "gemma3", {f"{name}.weight": (ones, kind) for name in names})
    assert [weight.name for weight in weights] == [
        "model.norm.weight",
        "model.layers.0.input_layernorm.weight",
        "model.layers.0.self_attn.q_norm.weight",
        "model.layers.0.post_feedforward_layernorm.weight",
    ]
    assert all(values(tmp_path / "m.gguf", weight).eq(0).all() for weight in weights)


def test_weights_that_are_no_numbers_are_refused(tmp_path) -> None:
    array = np.ones((2, 32), np.float32)
    array[1, 3] = np.inf
    [weight] = small(tmp_path / "m.gguf", "qwen2", {"blk.3.ffn_up.weight": (array, gguf.GGMLQuantizationType.F32)})
    with pytest.raises(AssetError, match=r"up_proj\.weight.*infinite"):
        values(tmp_path / "m.gguf", weight)


@pytest.mark.parametrize(
    ("architecture", "name"), [("mamba", "token_embd.weight"), ("qwen2", "blk.0.ssm_in.weight"), ("qwen2", "rope")]
)
def test_what_is_not_known_is_named(tmp_path, architecture: str, name: str) -> None:
    array = np.ones((1, 32), np.float32)
    with pytest.raises(AssetError, match="asset-not-converted"):
        small(tmp_path / "m.gguf", architecture, {name: (array, gguf.GGMLQuantizationType.F32)})
