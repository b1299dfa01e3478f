"""Low-rank noise as side products of the forward pass of both signs."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from optaware.train._seeds import derive_seed
from optaware.train.gpu._frame import Frame
from optaware.train.gpu._noise import words
from optaware.train.gpu._passes import gather_left, move, show
from optaware.train.gpu._reading import Decoder
from optaware.train.gpu._tables import Part, Tiles, key_halves, site_table
from optaware.train.gpu._vectors import Vectors
from optaware.train.noise import noise_key

__all__ = ["LowRankSides"]


@triton.jit(do_not_specialize=["seed_one", "seed_two"])
def _merge(
    weight, rest, learnt, right, decay, height, width, stride,
    seed_one, seed_two, RANK: tl.constexpr, ROUNDING: tl.constexpr, BLOCK: tl.constexpr, TURNS: tl.constexpr,
):  # fmt: skip
    """`W ← decay·W + A·Vᵀ` in fp32 with one rounding (see `move`); A lies transposed, (RANK, stride), V is (n, RANK)."""
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = column < width
    for turn in tl.static_range(TURNS):
        row = tl.program_id(0) * TURNS + turn
        mask = inside & (row < height)
        place = row.to(tl.int64) * width + column
        value = tl.load(weight + place, mask=mask, other=0.0).to(tl.float32)
        if ROUNDING == 2:
            value += tl.load(rest + place, mask=mask, other=0.0).to(tl.float32) * (1.0 / 1024.0)
        value *= decay
        for factor in tl.static_range(RANK):
            left = tl.load(learnt + factor * stride + row, mask=row < height, other=0.0)
            value += left * tl.load(right + column * RANK + factor, mask=inside, other=0.0).to(tl.float32)
        if ROUNDING == 1:
            noise = words(column, seed_one.to(tl.uint32) + row.to(tl.uint32) * 0x9E3779B1, seed_two.to(tl.uint32))
            bits = value.to(tl.int32, bitcast=True) + (noise >> 16).to(tl.int32)
            tl.store(weight + place, (bits & -65536).to(tl.float32, bitcast=True).to(tl.bfloat16), mask=mask)
        else:
            stored = value.to(weight.dtype.element_ty)
            tl.store(weight + place, stored, mask=mask)
            if ROUNDING == 2:
                value = (value - stored.to(tl.float32)) * 1024.0
                tl.store(rest + place, value.to(weight.dtype.element_ty), mask=mask)


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
    """

    def __init__(
        self, decoder: Decoder, frame: Frame, *, rank: int, refresh_every: int, seed: int, rounding: str
    ) -> None:
        self.decoder, self.frame, self.rank = decoder, frame, rank
        self.refresh_every, self.seed = refresh_every, seed
        weights = {name: each.data for name, each in decoder.parameters.items()}
        self.matrices = {name: each for name, each in weights.items() if each.ndim == 2}
        self.vectors = Vectors(decoder.parameters, [name for name in weights if weights[name].ndim < 2], frame)
        first = next(iter(self.matrices.values()))
        self.device, self.dtype = first.device, first.dtype
        if self.dtype != torch.bfloat16 and rounding == "stochastic":
            rounding = "none" if self.dtype.itemsize >= 4 else "residual"
        self.rounding = rounding
        kept = rounding == "residual"
        self.residuals = {name: torch.zeros_like(each) for name, each in self.matrices.items()} if kept else {}
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

    def _groups(self) -> list[tuple[str, ...]]:
        found: list[tuple[str, ...]] = [(name,) for name in dict.fromkeys((self.decoder.embedding, self.decoder.head))]
        for block in self.decoder.blocks:
            found += [block.qkv, (block.out,), (block.gate, block.up), (block.down,)]
        return found

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
            SITES=self.frame.sites, SOURCE=tl.float32, ALIGN=self.shown_tiles.align, BLOCK=self.shown_tiles.block, TURNS=1,
        )  # fmt: skip

    def inner(self, names: tuple[str, ...], value: Tensor) -> Tensor:
        """(2, M, r·len(names)): the input times the right factors of all `names`."""
        return torch.matmul(value, self.groups[names])

    def project(
        self, names: tuple[str, ...], value: Tensor, inner: Tensor | None, out: Tensor, side: bool = True
    ) -> None:
        """`out[s] = value[s]·Wᵀ (+ inner·left_s)`; without `side` the side products are left to the caller."""
        rows = value.shape[0] * value.shape[1]
        flat, wide, first = value.view(rows, -1), out.view(rows, -1), 0
        for at, name in enumerate(names):
            weight = self.matrices[name]
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
            SITES=self.frame.sites, SOURCE=tl.float32, ROUNDING=0, ALIGN=self.all_tiles.align, BLOCK=self.all_tiles.block, TURNS=1,
        )  # fmt: skip
        self.vectors.move(queries)

    def refresh(self, step: int) -> None:
        """Redraw V when `step` begins a new period; what was learnt is merged first."""
        period = (step - 1) // self.refresh_every
        if period == self.period:
            return
        if self.period is not None:
            self._merge()
        self._draw_right(period)

    def _draw_right(self, period: int) -> None:
        """V/√r of every matrix: z of shape (n, r) under the seed of the period, drawn by the pass that makes updates."""
        seed = derive_seed(self.seed, "right factors", period)
        names = list(self.right)
        drawn = [torch.zeros(self.matrices[name].shape[1], self.rank, device=self.device) for name in names]
        keys = key_halves([noise_key(seed, name) for name in names]).to(self.device)
        parts = [Part(at, (0, len(each)), self.rank, self.rank) for at, each in enumerate(drawn)]
        tiles = Tiles(parts, self.device, max(2, triton.next_power_of_2((self.rank + 1) // 2)), turns=8)
        amount = torch.full((1,), self.rank**-0.5, device=self.device)
        table = site_table(drawn)
        move[(tiles.count,)](
            tiles.table, table, keys, amount, self.frame.one, table, 1,
            SITES=len(names), SOURCE=tl.float32, ROUNDING=0, ALIGN=tiles.align, BLOCK=tiles.block, TURNS=8,
        )  # fmt: skip
        for name, each in zip(names, drawn, strict=True):
            self.right[name].copy_(each)
        self.period = period

    def _merge(self) -> None:
        rounding = {"none": 0, "stochastic": 1, "residual": 2}[self.rounding]
        for name, weight in self.matrices.items():
            height, width = weight.shape
            key = derive_seed(self.seed, "merge", self.period or 0, name)
            one, two = key & 0x7FFFFFFF, (key >> 32) & 0x7FFFFFFF
            block = min(1024, triton.next_power_of_2(width))
            _merge[(triton.cdiv(height, 8), triton.cdiv(width, block))](
                weight, self.residuals.get(name, weight), self.learnt[:, self.spans[name]], self.right[name].contiguous(),
                float(self.pending), height, width, self.learnt.stride(0), one, two,
                RANK=self.rank, ROUNDING=rounding, BLOCK=block, TURNS=8,
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
        """A, the fp32 vectors, the residuals, the pending decay and the period of V."""
        state = {"learnt": self.learnt, "vectors": self.vectors.learnt}
        state |= {f"residual.{name}": each for name, each in self.residuals.items()}
        state["pending"] = torch.tensor([self.pending], dtype=torch.float64)
        state["period"] = torch.tensor([-1 if self.period is None else self.period])
        return state

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up a saved state."""
        if (period := int(state["period"].item())) >= 0:
            self._draw_right(period)
        self.learnt.copy_(state["learnt"])
        self.vectors.learnt.copy_(state["vectors"])
        for name, each in self.residuals.items():
            each.copy_(state[f"residual.{name}"])
        self.pending = float(state["pending"].item())
