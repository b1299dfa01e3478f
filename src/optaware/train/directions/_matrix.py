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
        self.left = bank.shown[:, span]  # (A + scale·U)ᵀ, (r, m), in the dtype of the weight
        self.right = torch.zeros(site.shape[1], self.rank, dtype=weight.dtype, device=weight.device)  # V
        self.residual = torch.zeros_like(weight.data) if weight.dtype.itemsize < 4 else None
        self._group: SharedInput | None = None
        self._place = slice(0, self.rank)
        self._inner = self.left[:0]  # input times V, (tokens, r), between the two hooks of a module

    def draw_right(self, seed: int, source: torch.Generator) -> None:
        """Draw V; nothing learnt may be left in A."""
        size = torch.Size((self.site.shape[1], self.rank))
        right = gaussian_noise(seed, self.site.name, size, dtype=self.exact, source=source)
        self.right.copy_(right.div_(self.rank**0.5))

    def product(self) -> Tensor:
        """U·Vᵀ in the layout of the weight: the perturbation z of this matrix, written out."""
        dense = self.drawn.t() @ self.right.t().to(self.exact)
        return dense.t() if self.site.transposed else dense

    def merge(self, factor: float) -> None:
        """`W ← factor·W + A·Vᵀ`, `A ← 0`."""
        left, right = self.learnt.t(), self.right.to(self.exact)
        if self.site.transposed:
            left, right = right, left
        merge_product(self.site.parameter.data, self.residual, left, right, factor)
        self.learnt.zero_()

    def join(self, group: SharedInput, place: slice, right: Tensor) -> None:
        """Let `group` make the products with V, which from now on lies in the columns `place` of its `right`."""
        self._group, self._place, self.right = group, place, right[:, place]

    def attach(self, is_on: Callable[[], bool]) -> list[RemovableHandle]:
        """Add the side products to the outputs of the matrix's modules, whenever `is_on()`."""
        hooks: list[RemovableHandle] = []
        for module, kind in self.site.users:
            before = self._gather if kind == "embedding" else self._multiply
            after = self._add_columns if kind == "embedding" else self._add_rows
            hooks.append(module.register_forward_pre_hook(_only_when(is_on, before)))
            hooks.append(module.register_forward_hook(_only_when(is_on, after)))
        return hooks

    # The inner product is made before the module runs: its input is still in the cache then, and has been pushed out
    # of it by the weights afterwards.

    def _multiply(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if self._group is not None:
            self._inner = self._group.product(self, self._place, args[0])
        else:
            self._inner = args[0].reshape(-1, self.right.shape[0]) @ self.right

    def _add_rows(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        rows, inner, left = output.view(-1, self.left.shape[1]), self._inner, self.left
        if rows.dtype != left.dtype or inner.dtype != left.dtype:  # under autocast
            inner, left = inner.to(rows.dtype), left.to(rows.dtype)
        rows.addmm_(inner, left)

    def _gather(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        rows = self.left.index_select(1, args[0].reshape(-1)).t()
        self._inner = rows * embedding_scale(module)

    def _add_columns(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        output.view(-1, self.right.shape[0]).addmm_(self._inner, self.right.t())


def _only_when(is_on: Callable[[], bool], hook: Callable[..., None]) -> Callable[..., None]:
    def run(*args: Any) -> None:
        if is_on():
            hook(*args)

    return run
