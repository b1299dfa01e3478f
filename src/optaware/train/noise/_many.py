"""Noise of many parameters side by side, in as many operations as one of them takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from optaware.train.noise import _reference as reference
from optaware.train.noise._draw import Distribution
from optaware.train.noise._passes import fill, jitted

__all__ = ["SideBySide"]


class SideBySide:
    """Draws tables of one height and different widths next to each other.

    On a GPU an operation on a small table takes as long as its launch. A draw of one table is some sixty operations, so
    a model of hundreds of matrices would wait for tens of thousands of launches; here they share them.

    Args:
        widths: Columns of each table.
        device: Where to draw.
    """

    def __init__(self, widths: Sequence[int], device: torch.device) -> None:
        self._widths, self._device = list(widths), device
        self._layouts: dict[Distribution, tuple[Tensor, Tensor, Tensor, Tensor | None]] = {}

    def fill_into(
        self, out: Tensor, keys: Sequence[int], distribution: Distribution, left_out: Sequence[bool] | None = None
    ) -> None:
        """Put `fill(key_i, (height, width_i), distribution)` of all tables i into `out`, (height, Σ width): same bits.

        Args:
            out: Any floating dtype.
            keys: One a table.
            distribution: Of the numbers.
            left_out: Tables that are filled with zeros instead.
        """
        skipped = [False] * len(keys) if left_out is None else left_out
        if self._device.type == "cpu" and jitted():
            for part, key, skip in zip(torch.split(out, self._widths, dim=1), keys, skipped, strict=True):
                part.zero_() if skip else part.copy_(fill(key, (len(out), part.shape[1]), distribution))
            return
        out.copy_(self._together(keys, len(out), distribution))
        if any(skipped):
            zeros = torch.tensor(skipped).repeat_interleave(torch.tensor(self._widths))
            out.masked_fill_(zeros.to(self._device), 0.0)

    def _together(self, keys: Sequence[int], height: int, distribution: Distribution) -> Tensor:
        if distribution not in self._layouts:
            self._layouts[distribution] = self._layout(distribution)
        table, counter, place, bit = self._layouts[distribution]
        halves = np.array([[key & 0xFFFFFFFF, key >> 32] for key in keys], np.uint32).view(np.int32)
        low, high = torch.from_numpy(halves.T.copy()).to(self._device)
        rows = torch.arange(0, 2 * height, 2, dtype=torch.int32, device=self._device)[:, None]
        first, second = reference.words(rows, low, high), reference.words(rows + 1, low, high)
        word = reference.words(counter, first[:, table], second[:, table])
        if bit is None:
            return torch.cat(reference.pairs(word), dim=1)[:, place]
        return (1 - 2 * ((word[:, place] >> bit) & 1)).to(torch.float32)

    def _layout(self, distribution: Distribution) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Table and counter of each word; for each column the place it comes from, and its bit of the word there.

        Words of a table: half as many as columns for pairs, whose second numbers all follow the first ones; a 32nd for
        signs.
        """
        signs = distribution == "rademacher"
        counts = [(width + 31) // 32 if signs else (width + 1) // 2 for width in self._widths]
        total, start = sum(counts), 0
        places, bits = [], []
        for width, count in zip(self._widths, counts, strict=True):
            block, within = np.divmod(np.arange(width), max(1, count))
            places.append(start + within + (0 if signs else total * block))
            bits.append(block)
            start += count
        table = np.repeat(np.arange(len(counts)), counts)
        counter = np.concatenate([np.arange(count, dtype=np.int32) for count in counts])
        found = [table, counter, np.concatenate(places)]
        made = [torch.from_numpy(each).to(self._device) for each in found]
        bit = torch.from_numpy(np.concatenate(bits).astype(np.int32)).to(self._device) if signs else None
        return made[0], made[1], made[2], bit
