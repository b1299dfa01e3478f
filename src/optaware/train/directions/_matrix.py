"""The factors of one matrix, and how they act inside the forward pass of its modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from optaware.train import noise
from optaware.train.directions._bank import MatrixBank
from optaware.train.directions._frame import Copies
from optaware.train.directions._merge import merge_product
from optaware.train.directions._sites import MatrixSite, embedding_scale
from optaware.train.noise import Remedy, table

__all__ = ["MatrixFactors"]

_ENTRIES = 1 << 22
"""Numbers that are written out at a time where a parameter is exchanged: 16 MB in fp32."""


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

    def __init__(
        self, site: MatrixSite, bank: MatrixBank, span: slice, copies: Copies, remedy: Remedy = "residual"
    ) -> None:
        weight = site.parameter
        self.site = site
        self._bank, self._span, self._copies = bank, span, copies
        self.rank = bank.rank
        self.exact = bank.exact
        self.learnt = bank.learnt[:, span]  # Aᵀ, (r, m)
        self.drawn = bank.drawn[:, span]  # Uᵀ, (r, m)
        self.right = torch.zeros(site.shape[1], self.rank, dtype=weight.dtype, device=weight.device)  # V
        self.remedy: Remedy = remedy if weight.dtype.itemsize < 4 else "none"
        self.residual: Tensor | None = None  # or the master copy
        if self.remedy == "residual":
            self.residual = torch.zeros_like(weight.data)
        elif self.remedy == "master":
            self.residual = weight.data.float().clone()
        self._group: SharedInput | None = None
        self._place = slice(0, self.rank)
        self._inner = self.right[:0]  # input times V, (tokens, r), between the two hooks of a module

    @property
    def left(self) -> Tensor:
        """(A + scale·U)ᵀ of each probe, (P, r, m), in the dtype of the weight."""
        return self._bank.shown[:, :, self._span]

    def take_right(self, numbers: Tensor) -> None:
        """Make V of standard normal numbers, Vᵀ as (r, n); nothing learnt may be left in A."""
        self.right.copy_((numbers.to(self.exact) / self.rank**0.5).t())

    def product(self) -> Tensor:
        """U·Vᵀ in the layout of the weight: the perturbation z of this matrix, written out."""
        dense = self.drawn.t() @ self.right.t().to(self.exact)
        return (dense.t() if self.site.transposed else dense).view(self.site.parameter.shape)

    def merge(self, factor: float, rounding_key: int = 0) -> None:
        """`W ← factor·W + A·Vᵀ`, `A ← 0`."""
        left, right = self.learnt.t(), self.right.to(self.exact)
        if self.site.transposed:
            left, right = right, left
        weight, kept = _flat(self.site.parameter.data), None if self.residual is None else _flat(self.residual)
        elsewhere = kept is not None and kept.device != weight.device
        if kept is not None and elsewhere:
            kept = kept.to(weight.device)
        if self.remedy == "residual" or weight.dtype.itemsize >= 4:
            merge_product(weight, kept, left, right, factor)
        else:
            noise.add(weight, kept, left @ right.t(), factor, self.remedy, rounding_key)
        if self.residual is not None and kept is not None and elsewhere:
            self.residual.copy_(kept.view_as(self.residual))
        self.learnt.zero_()

    def written(self) -> Tensor:
        """`W + (A + scale·U)·Vᵀ` of the first probe, in the dtype of W: where no module takes side products."""
        weight = _flat(self.site.parameter.data)
        left, right = self.left[0].t().to(self.exact), self.right.to(self.exact)
        if self.site.transposed:
            left, right = right, left
        made = torch.empty_like(weight)
        rows = max(1, _ENTRIES // weight.shape[1])
        for start in range(0, weight.shape[0], rows):
            part = slice(start, start + rows)
            made[part] = torch.addmm(weight[part].to(self.exact), left[part], right.t())
        return made.view(self.site.parameter.shape)

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

    def _add_rows(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        left = self.left
        if output.dtype != left.dtype or self._inner.dtype != left.dtype:  # under autocast
            self._inner, left = self._inner.to(output.dtype), left.to(output.dtype)
        if len(left) == 1:
            output.view(-1, left.shape[2]).addmm_(self._inner, left[0])
            return output
        if args[0].shape[0] == 1:
            output = self._copies.whole(output).contiguous()
            self._inner = self._copies.whole(self._inner[None]).contiguous()
        self._copies.whole(output)
        inner = self._inner.reshape(len(left), -1, self.rank)
        output.view(len(left), -1, left.shape[2]).baddbmm_(inner, left)
        return output

    def _gather(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        left = self.left
        ids = self._copies.whole(args[0]).reshape(len(left), -1)
        rows = [each.index_select(1, places).t() for each, places in zip(left, ids, strict=True)]
        self._inner = (rows[0] if len(rows) == 1 else torch.cat(rows)) * embedding_scale(module)

    def _add_columns(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        if len(self._bank.shown) > 1:
            output = self._copies.whole(output).contiguous()
        output.view(-1, self.right.shape[0]).addmm_(self._inner, self.right.t())
        return output


def _flat(value: Tensor) -> Tensor:
    """A parameter of more than two dimensions as the table of its last one and all others."""
    return value if value.ndim == 2 else value.view(table(value.shape))


def _only_when(is_on: Callable[[], bool], hook: Callable[..., Any]) -> Callable[..., Any]:
    def run(*args: Any) -> Any:
        return hook(*args) if is_on() else None

    return run
