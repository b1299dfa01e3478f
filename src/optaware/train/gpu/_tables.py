"""Tables that let one kernel launch pass over many parameters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["BLOCK", "TURNS", "Part", "Tiles", "key_halves", "site_table"]

BLOCK = 1024
"""Counters that a kernel handles at a time: two numbers each."""

TURNS = 8
"""Rows of a tile."""


@dataclass(frozen=True)
class Part:
    """Some rows of one parameter and where their result goes.

    Attributes:
        site: Number of the parameter in the site table.
        rows: Its first row and the row after the last.
        columns: Columns of the parameter.
        stride: Numbers from one row to the next in the output.
        target: Place in the output, in numbers, that the first row goes to.
    """

    site: int
    rows: tuple[int, int]
    columns: int
    stride: int
    target: int = 0


class Tiles:
    """The tiles of some parts, as kernels read them: (tiles, 4) int32 of site, first row, first counter, target.

    `align` is what all places and widths are multiples of, which lets the compiler load 16 bytes at a time.
    A tile reaches over the end of its part when the part's rows are no multiple of `turns`; unless the part ends with
    its parameter, `turns` must divide its rows.
    """

    def __init__(
        self, parts: Sequence[Part], device: torch.device | str, block: int = BLOCK, turns: int = TURNS
    ) -> None:
        self.block, self.turns = block, turns
        even = all(part.columns % 32 == 0 and part.stride % 16 == 0 and part.target % 16 == 0 for part in parts)
        self.align = 16 if even and block % 16 == 0 else 1
        pieces = []
        for part in parts:
            first, end = part.rows
            rows = torch.arange(first, end, turns, dtype=torch.int32)
            starts = torch.arange(0, (part.columns + 1) // 2, block, dtype=torch.int32)
            tiles = torch.empty(len(rows), len(starts), 4, dtype=torch.int32)
            tiles[..., 0] = part.site
            tiles[..., 1] = rows[:, None]
            tiles[..., 2] = starts
            tiles[..., 3] = ((rows - first) * part.stride + part.target)[:, None]
            pieces.append(tiles.view(-1, 4))
        self.table = torch.cat(pieces).to(device)
        self.count = len(self.table)


def site_table(tensors: Sequence[Tensor]) -> Tensor:
    """(sites, 4) int64 on their device: address, rows, columns and row stride of each (vectors are one row)."""
    rows = []
    for tensor in tensors:
        table = tensor.reshape(1, -1) if tensor.ndim < 2 else tensor
        if table.ndim != 2 or table.stride(1) != 1:
            raise ValueError("kernels pass over matrices with contiguous rows only")
        rows.append((table.data_ptr(), *table.shape, table.stride(0)))
    return torch.tensor(rows, dtype=torch.int64).to(tensors[0].device)


def key_halves(keys: Sequence[int]) -> Tensor:
    """64-bit keys as a flat int32 tensor on the CPU: lower half, upper half of each."""
    words = torch.tensor([key - (1 << 64) if key >> 63 else key for key in keys], dtype=torch.int64)
    return words.view(torch.int32)
