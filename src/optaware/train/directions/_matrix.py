"""The factors of one matrix, and how they act inside the forward pass of its modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from optaware.train.directions._bank import MatrixBank
from optaware.train.directions._merge import merge_product
from optaware.train.directions._sites import MatrixSite, embedding_scale
from optaware.train.directions.gaussian import gaussian_noise

__all__ = ["MatrixFactors"]


class SharedInput(Protocol):
    """Makes the products of one input with the right factors of several matrices."""

    def product(self, member: MatrixFactors, place: slice, value: Tensor) -> Tensor:
        """The product for one of them."""
        ...


class MatrixFactors:
    """The model computes with `W + A·Vᵀ + scale·U·Vᵀ` for a matrix W of shape (m, n).

    A (m, r) is what was learnt since V (n, r) was drawn, U (m, r) is the probe's own, and 1/√r is part of V, so that
    the entries of U·Vᵀ have unit variance. A and U are views into a bank.
    """

    def __init__(self, site: MatrixSite, bank: MatrixBank, span: slice) -> None:
        weight = site.parameter
        self.site = site
        self.rank = bank.rank
        self.exact = bank.exact
        self.learnt = bank.learnt[:, span]  # Aᵀ, (r, m)
        self.drawn = bank.drawn[:, span]  # Uᵀ, (r, m)
        self.left = bank.shown[:, span]  # [A, scale·U]ᵀ, (2r, m)
        self.right = torch.zeros(site.shape[1], 2 * self.rank, dtype=weight.dtype, device=weight.device)  # [V, V]
        self.residual = torch.zeros_like(weight.data) if weight.dtype.itemsize < 4 else None
        self._group: SharedInput | None = None
        self._place = slice(0, 2 * self.rank)

    def draw_right(self, seed: int, source: torch.Generator) -> None:
        """Draw V; nothing learnt may be left in A."""
        size = torch.Size((self.site.shape[1], self.rank))
        right = gaussian_noise(seed, self.site.name, size, dtype=self.exact, source=source).div_(self.rank**0.5)
        self.right.copy_(torch.cat([right, right], dim=1))

    def product(self) -> Tensor:
        """U·Vᵀ in the layout of the weight: the perturbation z of this matrix, written out."""
        dense = self.drawn.t() @ self.right[:, : self.rank].t().to(self.exact)
        return dense.t() if self.site.transposed else dense

    def merge(self, factor: float) -> None:
        """`W ← factor·W + A·Vᵀ`, `A ← 0`."""
        left, right = self.learnt.t(), self.right[:, : self.rank].to(self.exact)
        if self.site.transposed:
            left, right = right, left
        merge_product(self.site.parameter.data, self.residual, left, right, factor)
        self.learnt.zero_()

    def join(self, group: SharedInput, place: slice, right: Tensor) -> None:
        """Let `group` make the products with V, which from now on lies in the columns `place` of its `right`."""
        self._group, self._place, self.right = group, place, right[:, place]

    def _inner(self, value: Tensor) -> Tensor:
        """`value · [V, V]`, (tokens, 2r)."""
        if self._group is not None:
            return self._group.product(self, self._place, value)
        return value.reshape(-1, self.right.shape[0]) @ self.right

    def attach(self, is_on: Callable[[], bool]) -> list[RemovableHandle]:
        """Add the side products to the outputs of the matrix's modules, whenever `is_on()`."""
        return [
            module.register_forward_hook(self._embedding(is_on) if kind == "embedding" else self._linear(is_on))
            for module, kind in self.site.users
        ]

    def _linear(self, is_on: Callable[[], bool]) -> Callable[..., Tensor | None]:
        def add(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            if not is_on():
                return None
            inner = self._inner(args[0])
            output.view(-1, self.left.shape[1]).addmm_(inner, self.left)
            return output

        return add

    def _embedding(self, is_on: Callable[[], bool]) -> Callable[..., Tensor | None]:
        def add(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            if not is_on():
                return None
            inner = self.left.index_select(1, args[0].reshape(-1)).t() * embedding_scale(module)  # (tokens, 2r)
            output.view(-1, self.right.shape[0]).addmm_(inner, self.right.t())
            return output

        return add
