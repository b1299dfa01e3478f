"""Norm scales and biases: fp32 copies that all moves go to, shown to the forward pass with both signs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from optaware.train.gpu._frame import Frame
from optaware.train.gpu._passes import move, show
from optaware.train.gpu._tables import Part, Tiles, site_table

__all__ = ["TRITON_TYPES", "Vectors"]

TRITON_TYPES = {
    torch.float32: tl.float32,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
    torch.float64: tl.float64,
}


class Vectors:
    """All vectors side by side.

    Attributes:
        learnt: v, fp32, (total).
        shown: v + eps·z and v − eps·z, fp32, (2, total).
    """

    def __init__(
        self, parameters: dict[str, nn.Parameter], names: Sequence[str], frame: Frame, signs: bool = False
    ) -> None:
        self.frame, self.names, self.signs = frame, tuple(names), signs
        self.stored = [parameters[name].data for name in names]
        sizes = [each.numel() for each in self.stored]
        self.spans = {name: slice(sum(sizes[:at]), sum(sizes[: at + 1])) for at, name in enumerate(names)}
        device = self.stored[0].device
        self.learnt = torch.cat([each.float().reshape(-1) for each in self.stored])
        self.shown = torch.zeros(2, len(self.learnt), device=device)
        numbers = [frame.names.index(name) for name in names]
        block = min(1024, triton.next_power_of_2((max(sizes) + 1) // 2))
        parts = [
            Part(number, (0, 1), size, size, self.spans[name].start)
            for number, size, name in zip(numbers, sizes, names, strict=True)
        ]
        self.tiles = Tiles(parts, device, block, turns=1)
        self.sites = torch.zeros(frame.sites, 4, dtype=torch.int64, device=device)
        self.sites[numbers] = site_table([self.learnt[self.spans[name]] for name in names])

    def show(self) -> None:
        """Draw and add both signs."""
        show[(self.tiles.count,)](
            self.tiles.table, self.sites, self.frame.keys, self.frame.query, self.frame.eps, self.shown,
            self.shown.stride(0), self.shown.stride(0), SITES=self.frame.sites, SOURCE=tl.float32, ALIGN=self.tiles.align, BLOCK=self.tiles.block, TURNS=1,
            SIGNS=self.signs,
        )  # fmt: skip

    def at(self, name: str) -> Tensor:
        """Both signs of one vector, (2, size), rows as far apart as in `shown`."""
        return self.shown[:, self.spans[name]]

    def move(self, queries: int) -> None:
        """`v ← v + Σ amounts·z`."""
        move[(self.tiles.count,)](
            self.tiles.table, self.sites, self.frame.keys, self.frame.amounts, self.frame.one, self.sites, queries,
            SITES=self.frame.sites, SOURCE=tl.float32, ROUNDING=0, ALIGN=self.tiles.align, BLOCK=self.tiles.block, TURNS=1,
            SIGNS=self.signs,
        )  # fmt: skip

    def learnt_of(self, name: str) -> Tensor:
        """v of one vector, (size)."""
        return self.learnt[self.spans[name]]

    def settle(self) -> None:
        """Round v into the stored parameters."""
        for name, stored in zip(self.names, self.stored, strict=True):
            stored.copy_(self.learnt[self.spans[name]].view_as(stored))
