"""Matrices that multiply the very same input, as the query, key and value projections do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from optaware.train.directions._matrix import MatrixFactors
from optaware.train.directions._sites import MatrixSite
from optaware.train.directions._vector import VectorCopy

__all__ = ["InputGroup", "swap_uncalled", "trace", "trace_modules"]


class InputGroup:
    """Makes the product of one input with the right factors of all members at once, in the first member's call.

    Args:
        members: At least two, in the order in which the model calls them.
    """

    def __init__(self, members: Sequence[MatrixFactors]) -> None:
        self._right = torch.cat([member.right for member in members], dim=1)  # (n, Σr)
        self._last = members[-1]
        self._input: Tensor | None = None
        self._version = 0
        self._product: Tensor | None = None
        for index, member in enumerate(members):
            member.join(self, slice(index * member.rank, (index + 1) * member.rank), self._right)

    def product(self, member: MatrixFactors, place: slice, value: Tensor) -> Tensor:
        """`value · V` of one member, (tokens, r)."""
        product = self._product
        if product is None or value is not self._input or value._version != self._version:
            product = value.reshape(-1, self._right.shape[0]) @ self._right
            self._input, self._version, self._product = value, value._version, product
        if member is self._last:  # let go of the activation
            self._input = self._product = None
        return product[:, place]


def swap_uncalled(vectors: Sequence[VectorCopy], run: Callable[[], object]) -> None:
    """Run the model once; vectors whose module the pass did not call (they are used otherwise) are exchanged."""
    missing = {id(vector.site.module): vector.site.module for vector in vectors if vector.site.kind != "swap"}
    hooks = [
        module.register_forward_hook(lambda module, args, output: missing.pop(id(module), None) and None)
        for module in missing.values()
    ]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    for vector in vectors:
        if id(vector.site.module) in missing:
            vector.site.kind = "swap"


def trace_modules(sites: Sequence[MatrixSite], run: Callable[[], object]) -> list[str]:
    """Run the model once; returns the names of the matrices that have a module which the pass did not call."""
    missing = {id(module): site.name for site in sites for module, _ in site.users}

    def see(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        missing.pop(id(module), None)

    hooks = [module.register_forward_hook(see) for site in sites for module, _ in site.users]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return sorted(set(missing.values()))


def trace(matrices: Sequence[MatrixFactors], run: Callable[[], object]) -> list[str]:
    """Run the model once to see which matrices share an input, and group these.

    Args:
        matrices: All matrices.
        run: A forward pass.

    Returns:
        Names of the matrices that have a module which the pass did not call.
    """
    missing = {id(module): matrix for matrix in matrices for module, _ in matrix.site.users}
    groups: list[list[MatrixFactors]] = []
    last: list[Tensor] = []

    def watch(matrix: MatrixFactors) -> Callable[..., None]:
        def see(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            first = missing.pop(id(module), None) is not None
            if len(matrix.site.users) > 1 or matrix.site.users[0][1] == "embedding" or not first:
                last.clear()
                return
            if last and last[0] is args[0]:
                groups[-1].append(matrix)
            else:
                groups.append([matrix])
                last[:] = [args[0]]

        return see

    hooks = [module.register_forward_hook(watch(matrix)) for matrix in matrices for module, _ in matrix.site.users]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    for members in groups:
        if len({(member.right.device, member.right.dtype) for member in members}) == 1 < len(members):
            InputGroup(members)
    return sorted({matrix.site.name for matrix in missing.values()})
