"""The factors of one matrix, and how they act inside the forward pass of its modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from optaware.train.directions._merge import merge_product
from optaware.train.directions._sites import MatrixSite, embedding_scale
from optaware.train.directions.gaussian import gaussian_noise

__all__ = ["MatrixFactors"]


class MatrixFactors:
    """The model computes with `W + A·Vᵀ + scale·U·Vᵀ` for a matrix W of shape (m, n).

    A (m, r) is what was learnt since V (n, r) was drawn, U (m, r) is the probe's own, and 1/√r is part of V, so that
    the entries of U·Vᵀ have unit variance. A and U keep apart up to the last product: in a half-precision weight's
    dtype their sum would round off a part of scale·U as soon as A has grown.
    """

    def __init__(self, site: MatrixSite, rank: int) -> None:
        weight = site.parameter
        self.site = site
        self.rank = rank
        self.exact = torch.promote_types(weight.dtype, torch.float32)
        rows, columns = site.shape
        self.learnt = torch.zeros(rank, rows, dtype=self.exact, device=weight.device)  # Aᵀ
        self.drawn = torch.zeros_like(self.learnt)  # Uᵀ
        self.left = torch.zeros(2 * rank, rows, dtype=weight.dtype, device=weight.device)  # [A, scale·U]ᵀ
        self.right = torch.zeros(columns, 2 * rank, dtype=weight.dtype, device=weight.device)  # [V, V]
        self.residual = torch.zeros_like(weight.data) if weight.dtype.itemsize < 4 else None
        self.uses = [0] * len(site.users)

    def draw_right(self, seed: int) -> None:
        """Draw V; nothing learnt may be left in A."""
        size = torch.Size((self.site.shape[1], self.rank))
        name, device = self.site.name, self.right.device
        right = gaussian_noise(seed, name, size, dtype=self.exact, device=device).div_(self.rank**0.5)
        self.right[:, : self.rank].copy_(right)
        self.right[:, self.rank :].copy_(right)

    def draw_left(self, seed: int) -> None:
        """Draw U."""
        size, device = self.drawn.shape, self.drawn.device
        self.drawn = gaussian_noise(seed, self.site.name, size, dtype=self.exact, device=device)

    def set_scale(self, scale: float) -> None:
        """Set what U is multiplied by in the forward pass."""
        self.left[self.rank :].copy_(self.drawn * scale)

    def move(self, amount: float) -> None:
        """`A ← A + amount·U`."""
        self.learnt.add_(self.drawn, alpha=amount)
        self._show()

    def decay(self, factor: float) -> None:
        """`A ← factor·A`."""
        self.learnt.mul_(factor)
        self._show()

    def _show(self) -> None:
        self.left[: self.rank].copy_(self.learnt)

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
        self._show()

    def load(self, learnt: Tensor, residual: Tensor | None) -> None:
        """Take up A and the residual of the last merge."""
        self.learnt.copy_(learnt)
        self._show()
        if self.residual is not None and residual is not None:
            self.residual.copy_(residual)

    def attach(self, is_on: Callable[[], bool]) -> list[RemovableHandle]:
        """Add the side products to the outputs of the matrix's modules, whenever `is_on()`."""
        return [
            module.register_forward_hook(self._embedding(at, is_on) if kind == "embedding" else self._linear(at, is_on))
            for at, (module, kind) in enumerate(self.site.users)
        ]

    def _linear(self, at: int, is_on: Callable[[], bool]) -> Callable[..., Tensor | None]:
        def add(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            if not is_on():
                return None
            self.uses[at] += 1
            inner = args[0].reshape(-1, self.right.shape[0]) @ self.right  # (tokens, 2r)
            output.view(-1, self.left.shape[1]).addmm_(inner, self.left)
            return output

        return add

    def _embedding(self, at: int, is_on: Callable[[], bool]) -> Callable[..., Tensor | None]:
        def add(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            if not is_on():
                return None
            self.uses[at] += 1
            inner = self.left.index_select(1, args[0].reshape(-1)).t() * embedding_scale(module)  # (tokens, 2r)
            output.view(-1, self.right.shape[0]).addmm_(inner, self.right.t())
            return output

        return add
