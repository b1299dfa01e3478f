"""A tiny random model that is made in a moment: for tests, for trying a study, for machines without any weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optaware._io import write_bytes, write_json, write_text

__all__ = ["tiny_model"]

_SPECIAL = ("<|end|>", "<|start|>", "<|pad|>")
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)


def tiny_model(
    folder: Path | str,
    *,
    seed: int = 0,
    vocab_size: int = 264,
    hidden_size: int = 32,
    layers: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    max_positions: int = 2048,
    std: float = 0.1,
    add_bos: bool = False,
) -> Path:
    """Write a tiny Llama-shaped model with random weights and a byte tokenizer, in Hugging Face layout.

    Weights are drawn from N(0, std²) (norms are 1), fp32, input and output embeddings tied; the same arguments write
    the same bytes. The tokenizer has one token per byte and three special tokens, so that every text round-trips,
    and a chat template. Everything is drawn from a generator of its own.

    Args:
        folder: Where to write; made if it is not there.
        seed: Of the weights.
        vocab_size: Rows of the embedding, at least 259 (256 bytes and the special tokens).
        hidden_size: Width; a multiple of `2 * heads`.
        layers: Transformer layers.
        heads: Attention heads; a multiple of `kv_heads`.
        kv_heads: Key and value heads.
        max_positions: Longest input, in tokens (bytes).
        std: Standard deviation of the weights.
        add_bos: Whether the tokenizer puts `<|start|>` before each text.

    Returns:
        `folder`.

    Raises:
        ValueError: Sizes that do not fit together.
    """
    if vocab_size < 256 + len(_SPECIAL):
        raise ValueError(
            f"vocab_size {vocab_size} is below {256 + len(_SPECIAL)}, one token per byte and the special ones"
        )
    if hidden_size % (2 * heads) or heads % kv_heads:
        raise ValueError(f"hidden_size {hidden_size}, heads {heads} and kv_heads {kv_heads} do not divide each other")
    folder = Path(folder)
    end, start, pad = range(256, 256 + len(_SPECIAL))
    write_bytes(folder / "model.safetensors", _weights(seed, vocab_size, hidden_size, layers, heads, kv_heads, std))
    _write_tokenizer(folder, max_positions, add_bos)
    write_json(
        folder / "generation_config.json",
        {"bos_token_id": start, "eos_token_id": end, "pad_token_id": pad},
    )
    write_json(
        folder / "config.json",
        {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": vocab_size,
            "hidden_size": hidden_size,
            "intermediate_size": 2 * hidden_size,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": hidden_size // heads,
            "max_position_embeddings": max_positions,
            "rms_norm_eps": 1e-5,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "hidden_act": "silu",
            "attention_bias": False,
            "mlp_bias": False,
            "tie_word_embeddings": True,
            "bos_token_id": start,
            "eos_token_id": end,
            "pad_token_id": pad,
            "dtype": "float32",
        },
    )
    return folder


def _weights(seed: int, vocab: int, hidden: int, layers: int, heads: int, kv_heads: int, std: float) -> bytes:
    import torch
    from safetensors.torch import save

    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * std

    wide = hidden // heads * kv_heads
    weights: dict[str, torch.Tensor] = {"model.embed_tokens.weight": draw(vocab, hidden)}
    for layer in range(layers):
        name = f"model.layers.{layer}."
        weights[name + "input_layernorm.weight"] = torch.ones(hidden)
        weights[name + "self_attn.q_proj.weight"] = draw(hidden, hidden)
        weights[name + "self_attn.k_proj.weight"] = draw(wide, hidden)
        weights[name + "self_attn.v_proj.weight"] = draw(wide, hidden)
        weights[name + "self_attn.o_proj.weight"] = draw(hidden, hidden)
        weights[name + "post_attention_layernorm.weight"] = torch.ones(hidden)
        weights[name + "mlp.gate_proj.weight"] = draw(2 * hidden, hidden)
        weights[name + "mlp.up_proj.weight"] = draw(2 * hidden, hidden)
        weights[name + "mlp.down_proj.weight"] = draw(hidden, 2 * hidden)
    weights["model.norm.weight"] = torch.ones(hidden)
    return save(weights, metadata={"format": "pt"})


def _write_tokenizer(folder: Path, max_positions: int, add_bos: bool) -> None:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={char: index for index, char in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIAL])
    if add_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<|start|> $A",
            pair="<|start|> $A $B",
            special_tokens=[("<|start|>", tokenizer.token_to_id("<|start|>"))],
        )
    write_text(folder / "tokenizer.json", tokenizer.to_str(pretty=True))
    settings: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|start|>",
        "eos_token": "<|end|>",
        "pad_token": "<|pad|>",
        "model_max_length": max_positions,
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "chat_template": _CHAT_TEMPLATE,
    }
    write_json(folder / "tokenizer_config.json", settings)
