"""Attention over a prefix that all rows share and over each row's own tokens, with the prefix stored once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.cache_utils import Cache, CacheLayerMixin

from optaware.models._introspect import unwrap

__all__ = ["Prefix", "RowCache", "sharing"]

Prefix = Sequence[tuple[Tensor, Tensor]]
"""Keys and values of the shared tokens, each `[1, H_kv, P, D]`, one pair per layer."""

_NAME = "optaware_shared_prefix"
_MOST_WEIGHTS = 1 << 25
_UNSUPPORTED = ("softcap", "s_aux", "position_bias")

_prefix: ContextVar[Prefix] = ContextVar("optaware_prefix")


class _RowLayer(CacheLayerMixin):  # type: ignore[misc]
    """Keys and values of one layer in buffers of fixed capacity: a step writes in place, dropping rows moves rows."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.length = 0
        self.rows = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        rows, heads = key_states.shape[:2]
        self.rows = rows
        self.keys = key_states.new_empty(rows, heads, self.capacity, key_states.shape[-1])
        self.values = value_states.new_empty(rows, value_states.shape[1], self.capacity, value_states.shape[-1])
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self.length = self.length, self.length + key_states.shape[2]
        self.keys[: self.rows, :, start : self.length] = key_states
        self.values[: self.rows, :, start : self.length] = value_states
        return self.keys[: self.rows, :, : self.length], self.values[: self.rows, :, : self.length]

    def keep(self, rows: Tensor) -> None:
        """Keep these rows, in this order."""
        for buffer in (self.keys, self.values):
            buffer[: len(rows), :, : self.length] = buffer[rows, :, : self.length]
        self.rows = len(rows)

    def get_seq_length(self) -> int:
        return self.length

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_max_length(self) -> int:
        return self.capacity


def _joined(parts: Sequence[_RowLayer], capacity: int) -> _RowLayer:
    whole = _RowLayer(capacity)
    whole.length = max(part.length for part in parts)
    whole.rows = sum(part.rows for part in parts)
    whole.is_initialized = True
    buffers = []
    for name in ("keys", "values"):
        first: Tensor = getattr(parts[0], name)
        buffer = first.new_empty(whole.rows, first.shape[1], capacity, first.shape[-1])
        row = 0
        for part in parts:
            own, padding = buffer[row : row + part.rows], whole.length - part.length
            own[:, :, :padding] = 0  # Masked, but a NaN left in memory would survive a weight of zero.
            own[:, :, padding : whole.length] = getattr(part, name)[: part.rows, :, : part.length]
            row += part.rows
        buffers.append(buffer)
    whole.keys, whole.values = buffers
    return whole


class RowCache(Cache):  # type: ignore[misc]
    """Key-value cache of `capacity` tokens a row that does not grow by copying and gives up finished rows cheaply."""

    def __init__(self, capacity: int) -> None:
        super().__init__(layer_class_to_replicate=lambda: _RowLayer(capacity))

    @classmethod
    def joined(cls, parts: Sequence[RowCache], capacity: int) -> RowCache:
        """The rows of all parts, one part below the other, aligned at their last tokens."""
        whole = cls(capacity)
        whole.layers = [_joined([part.layers[index] for part in parts], capacity) for index in range(len(parts[0]))]
        return whole

    def keep(self, rows: Tensor) -> None:
        """Keep these rows, in this order."""
        for layer in self.layers:
            layer.keep(rows)

    def prefix(self) -> Prefix:
        """What is stored, as a prefix for other rows."""
        return [(layer.keys[:, :, : layer.length], layer.values[:, :, : layer.length]) for layer in self.layers]


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention of each row over `[prefix | own tokens]`; follows the attention interface of transformers.

    The queries of all rows meet the prefix in one matrix product, so its keys are read once a step and not once a row.

    Args:
        module: The attention module; its `layer_idx` picks the prefix.
        query: `[B, H, Q, D]`.
        key: The rows' own keys, `[B, H_kv, S, D]`.
        value: The rows' own values, `[B, H_kv, S, D]`.
        attention_mask: Which own tokens each query sees, bool, `[B, 1, Q, S]`. The prefix is seen by all.
        scaling: Factor on the scores.
        kwargs: What else the model passes; features that would change the result are refused.

    Returns:
        The output, `[B, Q, H, D]`, and None in place of the weights.
    """
    if refused := [name for name in _UNSUPPORTED if kwargs.get(name) is not None]:
        raise ValueError(f"attention with {refused} is not computed over a shared prefix")
    if attention_mask is None:
        raise ValueError("attention over a shared prefix takes an explicit mask")
    prefix_key, prefix_value = _prefix.get()[int(module.layer_idx)]  # type: ignore[arg-type]
    rows, heads, steps, size = query.shape
    kv_heads, shared, own = key.shape[1], prefix_key.shape[2], key.shape[2]
    lines = heads // kv_heads * steps
    query = (query * (size**-0.5 if scaling is None else scaling)).reshape(rows, kv_heads, lines, size)
    at_once = max(1, _MOST_WEIGHTS // (heads * steps * (shared + own)))
    parts = [
        _attend_rows(query[at], key[at], value[at], attention_mask[at], prefix_key[0], prefix_value[0])
        for at in (slice(start, start + at_once) for start in range(0, rows, at_once))
    ]
    output = torch.cat(parts) if len(parts) > 1 else parts[0]
    return output.reshape(rows, heads, steps, -1).transpose(1, 2).contiguous(), None


def _attend_rows(
    query: Tensor, key: Tensor, value: Tensor, visible: Tensor, prefix_key: Tensor, prefix_value: Tensor
) -> Tensor:
    rows, kv_heads, lines, size = query.shape
    shared, own, steps = prefix_key.shape[1], key.shape[2], visible.shape[2]
    folded = query.transpose(0, 1).reshape(kv_heads, rows * lines, size)
    to_prefix = (folded @ prefix_key.transpose(1, 2)).view(kv_heads, rows, lines, shared).transpose(0, 1)
    to_own = (query @ key.transpose(2, 3)).view(rows, kv_heads, lines // steps, steps, own)
    to_own = to_own.masked_fill(~visible[:, :, None], -torch.inf).view(rows, kv_heads, lines, own)
    # Softmax sums in fp32 whatever the dtype. Asking for an fp32 result is several times slower on CPU.
    weights = torch.cat([to_prefix, to_own], dim=-1).softmax(-1)
    folded = weights[..., :shared].transpose(0, 1).reshape(kv_heads, rows * lines, shared)
    from_prefix = (folded @ prefix_value).view(kv_heads, rows, lines, -1).transpose(0, 1)
    return from_prefix + weights[..., shared:] @ value


AttentionInterface.register(_NAME, _attend)


@contextmanager
def sharing(model: nn.Module, prefix: Prefix) -> Iterator[None]:
    """Let the model attend to `prefix` before each row's own tokens while the block runs.

    Inside, caches and masks speak of the rows' own tokens only, masks are 4D and bool, and position ids start after
    the prefix. One block at a time per model: its attention implementation is switched meanwhile.
    """
    core = unwrap(model)
    before = core.config._attn_implementation
    token = _prefix.set(prefix)
    core.set_attn_implementation(_NAME)
    try:
        yield
    finally:
        core.set_attn_implementation(before)
        _prefix.reset(token)
