"""Low-rank noise as side products of the forward pass of both signs."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from optaware.train._seeds import derive_seed
from optaware.train.gpu._dense import ROUNDINGS, rounding_for
from optaware.train.gpu._frame import Frame
from optaware.train.gpu._passes import gather_left, move, show
from optaware.train.gpu._reading import Decoder, NotSupported
from optaware.train.gpu._tables import Part, Tiles, key_halves, site_table
from optaware.train.gpu._vectors import TRITON_TYPES, Vectors
from optaware.train.noise import noise_key
from optaware.train.noise._triton import gaussian_pair, row_key, site_key, words

__all__ = ["LowRankSides"]

_TURNS, _ROWS = 32, 128
"""Rows of a tile of a merge, and of a draw of V."""


@triton.jit
def _merge(
    tiles, sites, rests, rights, starts, learnt, decay, seeds, stride,
    SOURCE: tl.constexpr, RANK: tl.constexpr, RANK_BLOCK: tl.constexpr, ROUNDING: tl.constexpr,
    PRECISION: tl.constexpr, ALIGN: tl.constexpr, BLOCK: tl.constexpr, TURNS: tl.constexpr,
):  # fmt: skip
    """`W ← decay·W + A·Vᵀ` in fp32 with one rounding (see `move`), for all matrices in one launch.

    A tile names a matrix, its first row and its first column. A lies transposed, (RANK, stride), a matrix's columns from
    `starts`; `rights` holds address and row stride of each V, (n, RANK), `rests` the addresses of the residuals.
    """
    tile = tiles + tl.program_id(0).to(tl.int64) * 4
    site = tl.load(tile)
    first = tl.load(tile + 1)
    start = tl.multiple_of(tl.load(tile + 2), ALIGN)
    row = first + tl.arange(0, TURNS)
    column = start + tl.arange(0, BLOCK)
    height = tl.load(sites + site * 4 + 1).to(tl.int32)
    width = tl.load(sites + site * 4 + 2).to(tl.int32)
    if ALIGN == 16:
        width = width // 16 * 16
    exists, inside = row < height, column < width
    mask = exists[:, None] & inside[None, :]
    # Places within a tile are small numbers, which leaves registers for what is computed.
    corner = first.to(tl.int64) * width + start
    place = tl.arange(0, TURNS)[:, None] * width + tl.arange(0, BLOCK)[None, :]
    base = tl.multiple_of(tl.load(sites + site * 4).to(tl.pointer_type(SOURCE)), 16) + corner
    rest = base
    value = tl.load(base + place, mask=mask, other=0.0).to(tl.float32)
    if ROUNDING == 2:
        rest = tl.multiple_of(tl.load(rests + site).to(tl.pointer_type(SOURCE)), 16) + corner
        value += tl.load(rest + place, mask=mask, other=0.0).to(tl.float32) * (1.0 / 1024.0)
    factor = tl.arange(0, RANK_BLOCK)
    some = factor < RANK
    right = tl.load(rights + site * 2).to(tl.pointer_type(SOURCE))
    factors = right + column[None, :] * tl.load(rights + site * 2 + 1) + factor[:, None]
    amounts = learnt + tl.load(starts + site) + row[:, None] + factor[None, :] * stride
    change = tl.dot(
        tl.load(amounts, mask=exists[:, None] & some[None, :], other=0.0),
        tl.load(factors, mask=some[:, None] & inside[None, :], other=0.0).to(tl.float32),
        input_precision=PRECISION,
    )
    value = value * tl.load(decay) + change
    if ROUNDING == 1:
        low = tl.load(seeds).to(tl.uint32, bitcast=True)
        high = tl.load(seeds + 1).to(tl.uint32, bitcast=True)
        one, two = row_key(site, low, high)
        noise = words(column[None, :], one + row[:, None].to(tl.uint32) * 0x9E3779B1, two)
        bits = value.to(tl.int32, bitcast=True) + (noise >> 16).to(tl.int32)
        tl.store(base + place, (bits & -65536).to(tl.float32, bitcast=True).to(tl.bfloat16), mask=mask)
    else:
        stored = value.to(SOURCE)
        tl.store(base + place, stored, mask=mask)
        if ROUNDING == 2:
            tl.store(rest + place, ((value - stored.to(tl.float32)) * 1024.0).to(SOURCE), mask=mask)


@triton.jit
def _draw_right(tiles, rights, keys, amount, RANK: tl.constexpr, SOURCE: tl.constexpr, ROWS: tl.constexpr):
    """All V: `amount·z`, rounded, where zᵀ (RANK, n) is what is drawn. A tile names a V, its first counter and n."""
    tile = tiles + tl.program_id(0).to(tl.int64) * 3
    site = tl.load(tile)
    counter = tl.load(tile + 1) + tl.arange(0, ROWS)
    height = tl.load(tile + 2)
    half = (height + 1) // 2
    here = counter < half
    there = here & (counter + half < height)
    first, second = site_key(keys, site)
    stride = tl.load(rights + site * 2 + 1)
    place = tl.load(rights + site * 2).to(tl.pointer_type(SOURCE)) + counter * stride
    for factor in tl.static_range(RANK):
        low, high = row_key(tl.full((), factor, tl.int32), first, second)
        one, two = gaussian_pair(words(counter, low, high))
        tl.store(place + factor, (one * amount).to(SOURCE), mask=here)
        tl.store(place + half * stride + factor, (two * amount).to(SOURCE), mask=there)


class LowRankSides:
    """`z = U·Vᵀ/√r` for matrices, dense Gaussian z for vectors; the model computes with `W + (A ± eps·U)·Vᵀ`.

    What is learnt since V was drawn is A, in fp32; U is drawn when it is needed and never stored. A product with W serves
    the rows of both signs at once, and a side product of r columns is added: to the gate and up projections inside the
    kernel that applies the gate, to the others by one small batched product.

    Args:
        decoder: The model.
        frame: Keys and scales.
        rank: r.
        refresh_every: Steps between draws of V.
        seed: The run's seed.
        rounding: How merged weights are rounded: "none", "stochastic" or "residual".
        host_residuals: Keep the residuals in (pinned) memory of the host, which the merges then read and write there:
            no memory of the device, but the time of two copies of the weights over the bus at each merge. What is
            stored is the same to the bit.

    Raises:
        NotSupported: The host does not give that much pinned memory.
    """

    def __init__(
        self,
        decoder: Decoder,
        frame: Frame,
        *,
        rank: int,
        refresh_every: int,
        seed: int,
        rounding: str,
        host_residuals: bool = False,
    ) -> None:
        self.decoder, self.frame, self.rank = decoder, frame, rank
        self.refresh_every, self.seed = refresh_every, seed
        weights = {name: each.data for name, each in decoder.parameters.items()}
        self.matrices = {name: each for name, each in weights.items() if each.ndim == 2}
        self.vectors = Vectors(decoder.parameters, [name for name in weights if weights[name].ndim < 2], frame)
        first = next(iter(self.matrices.values()))
        self.device, self.dtype = first.device, first.dtype
        self.rounding = rounding_for(rounding, self.dtype)
        self.residuals: dict[str, Tensor] = {}
        self.on_host = host_residuals and self.rounding == "residual"
        if self.rounding == "residual":
            self.residuals = self._no_residuals()
        self.site = {name: at for at, name in enumerate(frame.names)}
        looked_up = {decoder.embedding, decoder.head}
        self.spans: dict[str, slice] = {}
        total = 0
        for name in sorted(self.matrices, key=lambda name: name in looked_up):
            self.spans[name] = slice(total, total + self.matrices[name].shape[0])
            total = self.spans[name].stop
            if name not in looked_up:
                shown = total
        self.learnt = torch.zeros(rank, total, device=self.device)  # Aᵀ of all matrices side by side
        self.left = torch.zeros(2, rank, shown, dtype=self.dtype, device=self.device)  # (A ± eps·U)ᵀ
        numbers = [self.site[name] for name in self.spans]
        self.sites = torch.zeros(frame.sites, 4, dtype=torch.int64, device=self.device)
        self.sites[numbers] = site_table([self.learnt[:, span] for span in self.spans.values()])
        inside = [name for name in self.spans if name not in looked_up]
        self.shown_tiles = self._tiles(inside)
        self.all_tiles = self._tiles(list(self.spans))
        self.right: dict[str, Tensor] = {}
        self.groups: dict[tuple[str, ...], Tensor] = {}
        for names in self._groups():
            together = torch.zeros(
                self.matrices[names[0]].shape[1], rank * len(names), dtype=self.dtype, device=self.device
            )
            self.groups[names] = together
            for at, name in enumerate(names):
                self.right[name] = together[:, at * rank : (at + 1) * rank]
        self.period: int | None = None
        self.pending = 1.0
        self.step = 0
        self._foreseen: tuple[int, Tensor] = (-1, torch.empty(0))
        self._prepare_refresh()

    def _no_residuals(self) -> dict[str, Tensor]:
        """Zeros for each matrix; on the host in pinned memory, which kernels reach by its own addresses."""
        pinned = self.on_host and self.device.type == "cuda"
        place: dict[str, Any] = {"device": "cpu", "pin_memory": True} if pinned else {"device": self.device}
        try:
            return {name: torch.zeros(each.shape, dtype=self.dtype, **place) for name, each in self.matrices.items()}
        except RuntimeError as error:
            if not pinned:
                raise
            size = sum(each.numel() * each.element_size() for each in self.matrices.values()) / 1e9
            raise NotSupported(f"the host does not give {size:.1f} GB of pinned memory for the residuals") from error

    def wait(self) -> None:
        """Wait for merges that still write to the host's memory: nothing else orders them before the host's work."""
        if self.on_host and self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def _groups(self) -> list[tuple[str, ...]]:
        found: list[tuple[str, ...]] = [(name,) for name in dict.fromkeys((self.decoder.embedding, self.decoder.head))]
        for block in self.decoder.blocks:
            found += [block.qkv, (block.out,), (block.gate, block.up), (block.down,)]
        return found

    def _prepare_refresh(self) -> None:
        """Tables that let one kernel merge all matrices and another one draw all V."""
        rests, starts = (
            torch.zeros(self.frame.sites, dtype=torch.int64),
            torch.zeros(self.frame.sites, dtype=torch.int64),
        )
        rights = torch.zeros(self.frame.sites, 2, dtype=torch.int64)
        merges, draws = [], []
        widest = max(each.shape[1] for each in self.matrices.values())
        even = all(each.shape[1] % 16 == 0 and each.data_ptr() % 16 == 0 for each in self.matrices.values())
        self._align = 16 if even else 1
        self._block = min(128, max(16, triton.next_power_of_2(widest)))
        for name, weight in self.matrices.items():
            site, right = self.site[name], self.right[name]
            rests[site] = self.residuals[name].data_ptr() if self.residuals else 0
            starts[site] = self.spans[name].start
            rights[site] = torch.tensor((right.data_ptr(), right.stride(0)))
            rows = torch.arange(0, weight.shape[0], _TURNS, dtype=torch.int32)
            columns = torch.arange(0, weight.shape[1], self._block, dtype=torch.int32)
            tiles = torch.zeros(len(rows), len(columns), 4, dtype=torch.int32)
            tiles[..., 0], tiles[..., 1], tiles[..., 2] = site, rows[:, None], columns
            merges.append(tiles.view(-1, 4))
            tops = torch.arange(0, (weight.shape[1] + 1) // 2, _ROWS, dtype=torch.int32)
            draws.append(
                torch.stack((torch.full_like(tops, site), tops, torch.full_like(tops, weight.shape[1])), dim=1)
            )
        tables = torch.zeros(self.frame.sites, 4, dtype=torch.int64, device=self.device)
        tables[[self.site[name] for name in self.matrices]] = site_table(list(self.matrices.values()))
        self._stored = tables
        self._rests, self._starts, self._rights = (each.to(self.device) for each in (rests, starts, rights))
        self._merge_tiles, self._draw_tiles = torch.cat(merges).to(self.device), torch.cat(draws).to(self.device)

    def _tiles(self, names: list[str]) -> Tiles:
        stride = self.left.stride(1)
        parts = [
            Part(
                self.site[name],
                (row, row + 1),
                self.matrices[name].shape[0],
                stride,
                row * stride + self.spans[name].start,
            )
            for name in names
            for row in range(self.rank)
        ]
        widest = max(part.columns for part in parts)
        return Tiles(parts, self.device, min(1024, max(16, triton.next_power_of_2((widest + 1) // 2))), turns=1)

    def begin(self) -> None:
        """Draw U and add both signs to A."""
        self.vectors.show()
        show[(self.shown_tiles.count,)](
            self.shown_tiles.table, self.sites, self.frame.keys, self.frame.query, self.frame.eps, self.left,
            self.left.stride(0), self.left.stride(1),
            SITES=self.frame.sites, SOURCE=tl.float32, ALIGN=self.shown_tiles.align, BLOCK=self.shown_tiles.block, TURNS=1, SIGNS=False,
        )  # fmt: skip

    def inner(self, names: tuple[str, ...], value: Tensor) -> Tensor:
        """(2, M, r·len(names)): the input times the right factors of all `names`."""
        return torch.matmul(value, self.groups[names])

    def project(
        self,
        names: tuple[str, ...],
        value: Tensor,
        inner: Tensor | None,
        out: Tensor,
        side: bool = True,
        span: tuple[int, int] | None = None,
    ) -> None:
        """`out[s] = value[s]·Wᵀ (+ inner·left_s)`; without `side` the side products are left to the caller.

        With `span` (for one matrix) only these of its rows.
        """
        rows = value.shape[0] * value.shape[1]
        flat, wide, first = value.view(rows, -1), out.view(rows, out.shape[2]), 0
        for at, name in enumerate(names):
            weight = self.matrices[name] if span is None else self.matrices[name][slice(*span)]
            place = slice(first, first + weight.shape[0])
            torch.mm(flat, weight.t(), out=wide[:, place])
            if side and inner is not None:
                product = inner[:, :, at * self.rank : (at + 1) * self.rank]
                out[:, :, place].baddbmm_(product, self.left[:, :, self.spans[name]])
            first = place.stop

    def _left_rows(self, name: str, ids: Tensor) -> Tensor:
        out = torch.empty(2, len(ids), self.rank, dtype=self.dtype, device=self.device)
        gather_left[(triton.cdiv(len(ids), 128),)](
            self.learnt[:, self.spans[name]], ids, self.frame.keys, self.frame.query, self.frame.eps, out, len(ids),
            self.matrices[name].shape[0], self.learnt.stride(0),
            SITE=self.site[name], SITES=self.frame.sites, RANK=self.rank, BLOCK=128,
        )  # fmt: skip
        return out

    def rows(self, name: str, ids: Tensor) -> Tensor:
        """Rows `ids` (flat) of a matrix with both signs, (2, len(ids), n)."""
        plain = self.matrices[name].index_select(0, ids).expand(2, -1, -1)
        return torch.baddbmm(plain, self._left_rows(name, ids), self.right[name].t().expand(2, -1, -1))

    def head_blocks(self, value: Tensor) -> list[tuple[int, int]]:
        """Blocks of the vocabulary that logits are made in."""
        height = self.matrices[self.decoder.head].shape[0]
        return [(first, min(first + 8192, height)) for first in range(0, height, 8192)]

    def head_block(self, value: Tensor, at: int) -> Tensor:
        """Logits (2, P, block) of one block of the vocabulary."""
        name = self.decoder.head
        first, end = self.head_blocks(value)[at]
        logits = torch.matmul(value, self.matrices[name][first:end].t())
        left = self._left_rows(name, torch.arange(first, end, device=self.device))
        return logits.baddbmm_(torch.matmul(value, self.right[name]), left.transpose(1, 2))

    def move(self, queries: int) -> None:
        """`A ← decay·A + Σ amounts·U`, and the vectors."""
        move[(self.all_tiles.count,)](
            self.all_tiles.table, self.sites, self.frame.keys, self.frame.amounts, self.frame.decay, self.sites, queries,
            SITES=self.frame.sites, SOURCE=tl.float32, ROUNDING=0, ALIGN=self.all_tiles.align, BLOCK=self.all_tiles.block, TURNS=1, SIGNS=False,
        )  # fmt: skip
        self.vectors.move(queries)

    def refresh(self, step: int) -> None:
        """Redraw V when `step` begins a new period; what was learnt is merged first."""
        self.step = step
        period = (step - 1) // self.refresh_every
        if period == self.period:
            return
        if self.period is not None:
            self._merge()
        self._draw_right(period)

    def foresee(self, step: int) -> None:
        """Make the keys that `refresh(step)` is going to need: work of the host, to be done while the device is busy."""
        period = (step - 1) // self.refresh_every
        if period != self.period:
            self._foreseen = (period, self._keys(period))

    def _keys(self, period: int) -> Tensor:
        seed = derive_seed(self.seed, "right factors", period)
        keys = key_halves([noise_key(seed, name) for name in self.frame.names])
        return keys.pin_memory() if self.device.type == "cuda" else keys

    def _draw_right(self, period: int) -> None:
        """V/√r of every matrix: Vᵀ of shape (r, n) under the seed of the period, as `LowRank` draws it."""
        keys = self._foreseen[1] if self._foreseen[0] == period else self._keys(period)
        keys = keys.to(self.device, non_blocking=True)
        _draw_right[(len(self._draw_tiles),)](
            self._draw_tiles, self._rights, keys, self.rank**-0.5,
            RANK=self.rank, SOURCE=TRITON_TYPES[self.dtype], ROWS=_ROWS,
        )  # fmt: skip
        self.period = period

    def _merge(self) -> None:
        seeds = key_halves([derive_seed(self.seed, "merge", self.period or 0, self.step)]).to(self.device)
        decay = torch.full((1,), self.pending, dtype=torch.float32, device=self.device)
        _merge[(len(self._merge_tiles),)](
            self._merge_tiles, self._stored, self._rests, self._rights, self._starts, self.learnt, decay, seeds,
            self.learnt.stride(0),
            SOURCE=TRITON_TYPES[self.dtype], RANK=self.rank, RANK_BLOCK=max(16, triton.next_power_of_2(self.rank)),
            ROUNDING=ROUNDINGS[self.rounding], PRECISION="ieee" if self.dtype.itemsize >= 4 else "tf32x3",
            ALIGN=self._align, BLOCK=self._block, TURNS=_TURNS, num_warps=4,
        )  # fmt: skip
        self.learnt.zero_()
        self.pending = 1.0

    def settle(self) -> None:
        """Merge all that was learnt into the stored weights."""
        if self.period is not None:
            self._merge()
        self.vectors.settle()

    def weights(self) -> dict[str, Tensor]:
        """The stored weights."""
        return {name: each.data for name, each in self.decoder.parameters.items()}

    def state(self) -> dict[str, Tensor]:
        """A, the fp32 vectors, the residuals, pending decay, step and period, named as the direction of hooks does."""
        self.wait()
        state = {f"learnt.{name}": self.learnt[:, span] for name, span in self.spans.items()}
        state |= {f"learnt.{name}": self.vectors.learnt_of(name) for name in self.vectors.names}
        state |= {f"residual.{name}": each for name, each in self.residuals.items()}
        state["pending"] = torch.tensor([self.pending], dtype=torch.float64)
        state["step"] = torch.tensor([self.step])
        state["period"] = torch.tensor([-1 if self.period is None else self.period])
        return state

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up a saved state."""
        self.wait()
        self.period = None
        if (period := int(state["period"].item())) >= 0:
            self._draw_right(period)
        for name, span in self.spans.items():
            self.learnt[:, span].copy_(state[f"learnt.{name}"])
        for name in self.vectors.names:
            self.vectors.learnt_of(name).copy_(state[f"learnt.{name}"].reshape(-1))
        for name, each in self.residuals.items():
            each.copy_(state[f"residual.{name}"])
        self.pending, self.step = float(state["pending"].item()), int(state["step"].item())
