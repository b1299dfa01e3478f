"""Storage of many small factors side by side, so that an operation on all of them is one kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from optaware.train import noise
from optaware.train.directions._sites import MatrixSite, VectorSite
from optaware.train.noise import Distribution

__all__ = ["MatrixBank", "VectorBank", "grouped"]

Site = TypeVar("Site", MatrixSite, VectorSite)


class _Bank(Generic[Site]):
    """Rows of `height` numbers per entry of each site, all sites of one device and dtype side by side.

    `learnt` and `drawn` are (height, total) in fp32 (fp64 for fp64 weights); site i owns the columns `spans[i]`.
    """

    def __init__(self, sites: Sequence[Site], lengths: Sequence[int], height: int) -> None:
        weight = sites[0].parameter
        self.sites: Sequence[Site] = sites
        self.dtype, self.device = weight.dtype, weight.device
        self.exact = torch.promote_types(self.dtype, torch.float32)
        ends = [sum(lengths[: index + 1]) for index in range(len(lengths))]
        self.spans = [slice(end - length, end) for end, length in zip(ends, lengths, strict=True)]
        self._noise = noise.SideBySide(lengths, self.device)
        self.learnt = torch.zeros(height, ends[-1], dtype=self.exact, device=self.device)
        self.drawn = torch.zeros_like(self.learnt)

    def draw(self, seed: int, distribution: Distribution = "gaussian", active: frozenset[str] | None = None) -> None:
        """Draw numbers for every site, each from the seed and its own name; zeros for sites that are not active."""
        keys = [noise.noise_key(seed, site.name) for site in self.sites]
        left_out = None if active is None else [site.name not in active for site in self.sites]
        self._noise.fill_into(self.drawn, keys, distribution, left_out)

    def move(self, amount: float) -> None:
        """`learnt ← learnt + amount·drawn`."""
        self.learnt.add_(self.drawn, alpha=amount)


class MatrixBank(_Bank[MatrixSite]):
    """Left factors: A in `learnt` and U in `drawn`, both transposed, (r, Σm); `shown` is (A + scale·U)ᵀ of each probe.

    `shown` has the dtype of the weights. In bf16 that rounds the sum by up to 1/512 of itself, which is small beside
    scale·U as long as A, which starts at zero with each new V, is not many times larger.
    """

    def __init__(self, sites: Sequence[MatrixSite], rank: int) -> None:
        super().__init__(sites, [site.shape[0] for site in sites], rank)
        self.rank = rank
        self._right_noise = noise.SideBySide([site.shape[1] for site in sites], self.device)
        self.shown = torch.zeros(1, *self.learnt.shape, dtype=self.dtype, device=self.device)

    def rights(self, seed: int) -> list[Tensor]:
        """Numbers for the right factor Vᵀ of each site, (r, n), fp32."""
        keys = [noise.noise_key(seed, site.name) for site in self.sites]
        widths = [site.shape[1] for site in self.sites]
        numbers = torch.empty(self.rank, sum(widths), device=self.device)
        self._right_noise.fill_into(numbers, keys, "gaussian")
        return list(torch.split(numbers, widths, dim=1))

    def divide(self, count: int) -> None:
        """Make room for so many probes in one forward pass."""
        if len(self.shown) != count:
            self.shown = torch.empty(count, *self.learnt.shape, dtype=self.dtype, device=self.device)

    def show(self, scale: float, probe: int = 0) -> None:
        """Let the forward pass see A + scale·U as it now is."""
        torch.add(self.learnt, self.drawn, alpha=scale, out=self.shown[probe])


class VectorBank(_Bank[VectorSite]):
    """Vectors v in `learnt` and z in `drawn`, (1, total)."""

    def __init__(self, sites: Sequence[VectorSite]) -> None:
        super().__init__(sites, [site.parameter.numel() for site in sites], 1)
        for site, span in zip(sites, self.spans, strict=True):
            self.learnt[0, span].copy_(site.parameter.data.reshape(-1))

    def at(self, scale: float) -> list[Tensor]:
        """`v + scale·z` of each site, in the shape of its parameter."""
        values = torch.add(self.learnt, self.drawn, alpha=scale)[0]
        return [values[span].view(site.parameter.shape) for site, span in zip(self.sites, self.spans, strict=True)]


def grouped(sites: Sequence[Site]) -> list[list[Site]]:
    """Sites that can share a bank: those of one device and dtype."""
    groups: dict[tuple[torch.device, torch.dtype], list[Site]] = {}
    for site in sites:
        groups.setdefault((site.parameter.device, site.parameter.dtype), []).append(site)
    return list(groups.values())
