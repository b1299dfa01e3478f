"""Biases, norm scales and other small parameters: dense noise, in fp32, without writing the stored weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from optaware.train.directions._bank import VectorBank
from optaware.train.directions._frame import Copies
from optaware.train.directions._sites import VectorSite

__all__ = ["VectorCopy", "compute_in_fp32", "run_by_probe"]


class VectorCopy:
    """The model computes with `v + scale·z`, v an fp32 copy of the parameter that all moves go to.

    A norm scale near 1 has steps of 7.8e-3 in bf16, which a perturbation of 1e-3 rarely crosses. So it is not rounded
    to the parameter's dtype: the norm computes in fp32 on an fp32 copy and its output is cast back; the change of a
    bias is added to the output of its module. v and z are views into a bank.
    """

    def __init__(self, site: VectorSite, bank: VectorBank, span: slice) -> None:
        self.site = site
        self.stored = site.parameter.data
        self.learnt = bank.learnt[0, span].view(site.parameter.shape)
        self.drawn = bank.drawn[0, span].view(site.parameter.shape)
        self.values: list[Tensor] = []  # of each probe of the coming forward pass

    def put_in(self, values: list[Tensor]) -> None:
        """Let the module compute with `values`, one per probe."""
        if self.site.kind == "bias":
            self.values = [(value - self.stored).to(self.stored.dtype) for value in values]
        else:
            self.values = values
            self.use(0)

    def use(self, probe: int) -> None:
        """Let the module compute with the value of one probe."""
        value = self.values[probe]
        self.site.parameter.data = value if self.site.kind == "module" else value.to(self.stored.dtype)

    def take_out(self) -> None:
        """Let the module compute with the stored weight again."""
        self.values = []
        if self.site.kind != "bias":
            self.site.parameter.data = self.stored

    def merge(self) -> None:
        """Round v into the stored weight; v itself stays."""
        self.stored.copy_(self.learnt)

    def attach(self, is_on: Callable[[], bool]) -> list[RemovableHandle]:
        """Add the change of a bias to its module's output, whenever `is_on()`."""
        if self.site.kind != "bias":
            return []

        def add(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            if not is_on():
                return None
            if len(self.values) == 1:
                return output.add_(self.values[0])
            for part, change in zip(output.chunk(len(self.values)), self.values, strict=True):
                part.add_(change)
            return output

        return [self.site.module.register_forward_hook(add)]


def run_by_probe(module: nn.Module, vectors: Sequence[VectorCopy], copies: Copies) -> Callable[[], None]:
    """Let a module that holds vectors only work on the rows of one probe after the other; returns how to undo that."""
    bare = module.forward

    def forward(value: Tensor, *args: Any, **options: Any) -> Any:
        if not copies.on or copies.count == 1:
            return bare(value, *args, **options)
        found = []
        for probe, part in enumerate(copies.split(value)):
            for vector in vectors:
                vector.use(probe)
            found.append(bare(part, *args, **options))
        return torch.cat(found)

    module.forward = forward

    def undo() -> None:
        if module.__dict__.get("forward") is forward:
            del module.__dict__["forward"]

    return undo


def compute_in_fp32(module: nn.Module, is_on: Callable[[], bool]) -> list[RemovableHandle]:
    """Cast a module's floating inputs to fp32 and its output back to what its first input was, whenever `is_on()`."""
    dtypes: list[torch.dtype] = []

    def widen(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not is_on():
            return None
        dtypes[:] = [args[0].dtype]
        return tuple(each.float() if isinstance(each, Tensor) and each.is_floating_point() else each for each in args)

    def narrow(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        return output.to(dtypes[0]) if is_on() else None

    return [module.register_forward_pre_hook(widen), module.register_forward_hook(narrow)]
