"""What a Llama-like Hugging Face model consists of, or why it is not one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

__all__ = ["Block", "Decoder", "NotSupported", "read_decoder"]


class NotSupported(Exception):
    """The fused step cannot run this model or method; the message says why."""


@dataclass(frozen=True)
class Block:
    """Names of the parameters of one decoder layer."""

    norm: str
    qkv: tuple[str, str, str]
    biases: tuple[str, str, str] | None
    out: str
    second_norm: str
    gate: str
    up: str
    down: str


@dataclass(frozen=True)
class Decoder:
    """A pre-norm decoder with RMS norms, rotary positions, grouped heads and a gated SiLU block, by parameter names."""

    parameters: dict[str, nn.Parameter]
    embedding: str
    head: str
    blocks: tuple[Block, ...]
    norm: str
    heads: int
    kv_heads: int
    head_size: int
    scaling: float
    epsilon: float
    rotary: Any
    window: int | None

    @property
    def width(self) -> int:
        """Of the hidden states."""
        return self.parameters[self.embedding].shape[1]

    @property
    def vocabulary(self) -> int:
        """Rows of the embedding."""
        return self.parameters[self.head].shape[0]


_FAMILIES = ("llama", "mistral", "qwen2", "smollm2")
_ROTARY = ("default", "linear", "llama3", "yarn")


def read_decoder(model: nn.Module) -> Decoder:
    """Find the parts of a model by their names.

    Raises:
        NotSupported: It has parts that are not known here, or some of its parameters are not trained.
    """
    core: Any = model
    config = getattr(core, "config", None)
    if config is None:
        raise NotSupported("it is no Hugging Face model")
    if config.model_type not in _FAMILIES:
        raise NotSupported(f"model type {config.model_type!r} is none of {', '.join(_FAMILIES)}")
    parameters = dict(core.named_parameters())
    if not all(each.requires_grad for each in parameters.values()):
        raise NotSupported("some parameters are frozen")
    if len({(each.dtype, each.device) for each in parameters.values()}) != 1:
        raise NotSupported("the parameters are of several dtypes or on several devices")
    names = {id(each): name for name, each in parameters.items()}
    try:
        decoder = _collect(core, config, parameters, names)
    except AttributeError as error:
        raise NotSupported(f"a part is missing: {error}") from error
    known = {decoder.embedding, decoder.head, decoder.norm}
    for block in decoder.blocks:
        known |= {block.norm, *block.qkv, *(block.biases or ()), block.out}
        known |= {block.second_norm, block.gate, block.up, block.down}
    if unknown := sorted(set(parameters) - known):
        raise NotSupported(f"parameters that a Llama-like model does not have: {', '.join(unknown[:3])}")
    return decoder


def _collect(core: Any, config: Any, parameters: dict[str, nn.Parameter], names: dict[int, str]) -> Decoder:
    base, text = core.model, config.get_text_config()
    blocks, epsilons, scalings = [], {base.norm.variance_epsilon}, set()
    for layer in base.layers:
        attention, mlp = layer.self_attn, layer.mlp
        if not isinstance(mlp.act_fn, nn.SiLU) and type(mlp.act_fn).__name__ != "SiLUActivation":
            raise NotSupported(f"its activation is {type(mlp.act_fn).__name__}, not SiLU")
        projections = (attention.q_proj, attention.k_proj, attention.v_proj)
        for linear in (*projections, attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj):
            if type(linear) is not nn.Linear:
                raise NotSupported(f"a projection is a {type(linear).__name__}")
        has_bias = [each.bias is not None for each in projections]
        if any(has_bias) != all(has_bias) or any(
            each.bias is not None for each in (attention.o_proj, mlp.gate_proj, mlp.up_proj, mlp.down_proj)
        ):
            raise NotSupported("a projection other than query, key and value has a bias")
        epsilons |= {layer.input_layernorm.variance_epsilon, layer.post_attention_layernorm.variance_epsilon}
        scalings.add(attention.scaling)
        q, k, v = (names[id(each.weight)] for each in projections)
        biases = None
        if all(has_bias):
            q_bias, k_bias, v_bias = (names[id(each.bias)] for each in projections)
            biases = (q_bias, k_bias, v_bias)
        blocks.append(
            Block(
                norm=names[id(layer.input_layernorm.weight)],
                qkv=(q, k, v),
                biases=biases,
                out=names[id(attention.o_proj.weight)],
                second_norm=names[id(layer.post_attention_layernorm.weight)],
                gate=names[id(mlp.gate_proj.weight)],
                up=names[id(mlp.up_proj.weight)],
                down=names[id(mlp.down_proj.weight)],
            )
        )
    head_size = base.layers[0].self_attn.head_dim
    if head_size & (head_size - 1):
        raise NotSupported(f"its heads have {head_size} numbers, which is no power of two")
    if head_size < 32 and base.norm.weight.is_cuda:
        raise NotSupported(f"its heads have {head_size} numbers; the attention kernel takes 32 or more")
    if len(epsilons) != 1 or len(scalings) != 1:
        raise NotSupported("its layers differ in their norms or in their attention")
    rotary = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default")
    if rotary not in _ROTARY:
        raise NotSupported(f"its rotary positions are of the kind {rotary!r}")
    if getattr(core.lm_head, "bias", None) is not None:
        raise NotSupported("its output head has a bias")
    sliding = getattr(text, "sliding_window", None) if getattr(text, "use_sliding_window", True) else None
    return Decoder(
        parameters=parameters,
        embedding=names[id(base.embed_tokens.weight)],
        head=names[id(core.lm_head.weight)],
        blocks=tuple(blocks),
        norm=names[id(base.norm.weight)],
        heads=text.num_attention_heads,
        kv_heads=text.num_key_value_heads,
        head_size=head_size,
        scaling=float(next(iter(scalings))),
        epsilon=float(next(iter(epsilons))),
        rotary=base.rotary_emb,
        window=sliding,
    )
