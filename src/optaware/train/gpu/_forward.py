"""One forward pass of a Llama-like decoder for both signs of a perturbation at once, up to the losses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import triton
from torch import Tensor

from optaware.train._static_batch import Batch
from optaware.train.gpu._blocks import add_norm, attend, gate
from optaware.train.gpu._reading import Block, Decoder
from optaware.train.gpu._vectors import Vectors

__all__ = ["Forward", "Perturbed"]

_EVEN = 64
"""What the halves of the inner width are multiples of."""


class Perturbed(Protocol):
    """Weights with both signs of a perturbation, as the forward pass uses them."""

    rank: int
    vectors: Vectors

    def begin(self) -> None:
        """Draw what the whole forward pass needs."""
        ...

    def inner(self, names: tuple[str, ...], value: Tensor) -> Tensor | None:
        """Inner products of an input with the right factors of all of `names`."""
        ...

    def project(
        self,
        names: tuple[str, ...],
        value: Tensor,
        inner: Tensor | None,
        out: Tensor,
        side: bool = True,
        span: tuple[int, int] | None = None,
    ) -> None:
        """`out[s] = value[s]·W_sᵀ` (rows `span` of it); without `side` the side products are left to the caller."""
        ...

    def rows(self, name: str, ids: Tensor) -> Tensor:
        """Rows of a matrix with both signs."""
        ...

    def head_blocks(self, value: Tensor) -> list[tuple[int, int]]:
        """Blocks of the vocabulary."""
        ...

    def head_block(self, value: Tensor, at: int) -> Tensor:
        """Logits of one block."""
        ...


@dataclass
class Forward:
    """Losses of both signs on one batch.

    The residual stream is in the dtype of the weights; norms, the gate, attention scores, logits of option tokens and
    losses are in fp32. In the last layer only the positions that logits are read at are computed.
    """

    decoder: Decoder
    weights: Perturbed

    def losses(self, batch: Batch) -> Tensor:
        """(2) fp32: mean loss of the rows of `batch`, times its share of the step's batch, at θ + eps·z and θ − eps·z."""
        decoder = self.decoder
        self.weights.begin()
        rows, length = batch.ids.shape
        hidden = self.weights.rows(decoder.embedding, batch.ids.reshape(-1))
        width = hidden.shape[2]
        dummy = torch.empty(1, dtype=torch.float32, device=hidden.device)
        cosine, sine = (
            each[..., : decoder.head_size // 2].contiguous() for each in decoder.rotary(dummy, batch.positions)
        )
        change: Tensor | None = None
        kept = length
        for at, block in enumerate(decoder.blocks):
            if at == len(decoder.blocks) - 1:
                kept = batch.keep
            attended = self._attention(block, hidden, change, (cosine, sine), batch, kept)
            if kept != length:
                hidden = (
                    hidden.view(2, rows, length, width)[:, :, length - kept :]
                    .reshape(2, rows * kept, width)
                    .contiguous()
                )
            change = torch.empty_like(hidden)
            names = (block.out,)
            self.weights.project(names, attended, self.weights.inner(names, attended), change)
            del attended
            value = [self._norm(block.second_norm, hidden, change)]
            change = None  # it has been added, and its memory is of use meanwhile
            change = self._gated(block, hidden, value)
        if kept != batch.keep:  # no layer at all
            hidden = hidden.view(2, rows, length, width)[:, :, length - batch.keep :].reshape(2, -1, width).contiguous()
        last = self._norm(decoder.norm, hidden, change)
        return self._losses(last.view(2, rows, batch.keep, width), batch)

    def _norm(self, name: str, hidden: Tensor, change: Tensor | None) -> Tensor:
        scale = self.weights.vectors.at(name)
        out = torch.empty_like(hidden)
        rows, width = hidden.shape[1:]
        add_norm[(2 * rows,)](
            hidden, hidden if change is None else change, scale, out, rows, scale.stride(0), self.decoder.epsilon,
            WIDTH=width, ADD=change is not None, BLOCK=triton.next_power_of_2(width),
            num_warps=8 if width > 2048 else 4,
        )  # fmt: skip
        return out

    def _attention(
        self, block: Block, hidden: Tensor, change: Tensor | None, turns: tuple[Tensor, Tensor], batch: Batch, kept: int
    ) -> Tensor:
        decoder = self.decoder
        value = self._norm(block.norm, hidden, change)
        size, heads, kv = decoder.head_size, decoder.heads, decoder.kv_heads
        qkv = torch.empty(2, value.shape[1], (heads + 2 * kv) * size, dtype=value.dtype, device=value.device)
        self.weights.project(block.qkv, value, self.weights.inner(block.qkv, value), qkv)
        del value
        if block.biases is not None:
            bias = torch.cat([self.weights.vectors.at(name) for name in block.biases], dim=1)
            qkv.add_(bias[:, None, :])
        rows, length = batch.ids.shape
        out = torch.empty(2, rows * kept, heads * size, dtype=qkv.dtype, device=qkv.device)
        block_m = min(64, max(16, triton.next_power_of_2(kept)))
        block_n = min(64, max(16, triton.next_power_of_2(length)))
        attend[(triton.cdiv(kept, block_m), 2 * rows * heads)](
            qkv, *turns, batch.segments, out, length, rows, kept, decoder.scaling,
            HEADS=heads, KV_HEADS=kv, SIZE=size, PRECISION="ieee" if qkv.dtype == torch.float32 else "tf32",
            BLOCK_M=block_m, BLOCK_N=block_n, num_warps=4, num_stages=2,
        )  # fmt: skip
        return out

    def _gated(self, block: Block, hidden: Tensor, normed: list[Tensor]) -> Tensor:
        """What the gated block adds to `hidden`; the inner width is made in two halves.

        Only the product of gate and up projection is kept whole. The input comes in a list, so that nobody else holds it
        when it is no longer needed.
        """
        weights, value = self.weights, normed.pop()
        inner = weights.inner((block.gate, block.up), value)
        rows, wide = value.shape[1], self.decoder.parameters[block.gate].shape[0]
        gates = torch.empty(2, rows, wide, dtype=value.dtype, device=value.device)
        part = -(-wide // (2 * _EVEN)) * _EVEN
        ups = torch.empty(2, rows, min(part, wide), dtype=value.dtype, device=value.device)
        for first in range(0, wide, part):
            end = min(first + part, wide)
            half, other = gates[:, :, first:end], ups[:, :, : end - first]
            weights.project((block.gate,), value, None, half, side=False, span=(first, end))
            weights.project((block.up,), value, None, other, side=False, span=(first, end))
            self._gate(block, half, other, inner, first)
        del ups, value, inner
        out = torch.empty_like(hidden)
        weights.project((block.down,), gates, weights.inner((block.down,), gates), out)
        return out

    def _gate(self, block: Block, gates: Tensor, ups: Tensor, inner: Tensor | None, first: int) -> None:
        rows, wide = gates.shape[1:]
        block_m, block_n = (16, 64) if rows < 64 else (64, 128)
        rank = self.weights.rank
        side: dict[str, Any] = {"inner": gates, "left": gates, "strides": (0, 0, 0, 0, 0)}
        if inner is not None:
            left = self.weights.left  # type: ignore[attr-defined]
            starts = (self.weights.spans[name].start + first for name in (block.gate, block.up))  # type: ignore[attr-defined]
            side = {"inner": inner, "left": left, "strides": (inner.stride(1), left.stride(1), left.stride(0), *starts)}
        gate[(triton.cdiv(rows, block_m), triton.cdiv(wide, block_n), 2)](
            gates, ups, side["inner"], side["left"], rows, wide, gates.stride(1), ups.stride(1), *side["strides"],
            RANK=rank, RANK_BLOCK=max(16, triton.next_power_of_2(max(rank, 1))), BLOCK_M=block_m, BLOCK_N=block_n,
            PRECISION="ieee" if gates.dtype == torch.float32 else "tf32",
        )  # fmt: skip

    def _losses(self, last: Tensor, batch: Batch) -> Tensor:
        signs, rows, keep, width = last.shape
        options, tokens = batch.tokens.shape[1:]
        chosen = self.weights.rows(self.decoder.head, batch.tokens.reshape(-1))
        columns = batch.columns.reshape(1, rows, options * tokens, 1).expand(signs, -1, -1, width)
        states = last.gather(2, columns)
        products = states.float() * chosen.view(signs, rows, options * tokens, width).float()
        logits = products.sum(-1).view(signs, rows, options, tokens)
        if batch.normalise:
            normaliser = self._normaliser(last.view(signs, rows * keep, width)).view(signs, rows, keep)
            logits = logits - normaliser.gather(2, columns[..., 0]).view_as(logits)
        present = torch.arange(tokens, device=last.device) < batch.lengths[..., None]
        scores = torch.where(present, logits, 0.0).sum(-1) / batch.lengths.clamp(min=1)
        if batch.contrast:
            scores = scores.masked_fill(batch.lengths == 0, -torch.inf).log_softmax(-1)
        own = scores.gather(2, batch.labels.expand(signs, rows, 1))
        return -own.mean((1, 2)) * batch.share

    def _normaliser(self, value: Tensor) -> Tensor:
        """`log Σ exp logit` over the vocabulary, a block at a time, fp32."""
        total: Tensor | None = None
        for at in range(len(self.weights.head_blocks(value))):
            part = self.weights.head_block(value, at).float().logsumexp(-1)
            total = part if total is None else torch.logaddexp(total, part)
        if total is None:
            raise ValueError("a vocabulary of no tokens")
        return total
