"""Biases, norm scales and other small parameters: dense noise, in fp32, without writing the stored weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar
from weakref import WeakKeyDictionary, ref

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from optaware.train.directions._bank import VectorBank
from optaware.train.directions._frame import Copies
from optaware.train.directions._sites import VectorSite

__all__ = ["VectorCopy", "VectorModule"]


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
        """Let the module compute with `values`, one per probe.

        A norm holds them during its calls alone: some models look at the dtype of its scale to cast what they give it.
        """
        if self.site.kind == "bias":
            self.values = [(value - self.stored).to(self.stored.dtype) for value in values]
        else:
            self.values = values
            if self.site.kind == "swap":
                self.use(0)

    def use(self, probe: int) -> None:
        """Let the module compute with the value of one probe."""
        value = self.values[probe]
        self.site.parameter.data = value if self.site.kind == "module" else value.to(self.stored.dtype)

    def rest(self) -> None:
        """Put the stored weight back."""
        if self.site.kind != "bias":
            self.site.parameter.data = self.stored

    def take_out(self) -> None:
        """Let the module compute with the stored weight again."""
        self.values = []
        self.rest()

    def merge(self) -> None:
        """Round v into the stored weight; v itself stays."""
        self.stored.copy_(self.learnt)

    def attach(self, is_on: Callable[[], bool]) -> list[RemovableHandle]:
        """Add the change of a bias to its module's output, whenever `is_on()`."""
        if self.site.kind != "bias":
            return []

        def add(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor | None:
            if not is_on() or self.site.kind != "bias":  # exchanged since, where the module was not called
                return None
            if len(self.values) == 1:
                return output.add_(self.values[0])
            for part, change in zip(output.chunk(len(self.values)), self.values, strict=True):
                part.add_(change)
            return output

        return [self.site.module.register_forward_hook(add)]


class VectorModule:
    """A module that holds vectors only, such as a norm, and the directions that perturb some of them.

    While one of them does, the module works on the rows of one probe after the other, each with that probe's vectors
    and in fp32: inputs and vectors that nobody perturbs are cast for the call, the output is cast back. There is one
    such object a module, because several directions (one for each parameter group) may have a share in it.
    """

    _all: ClassVar[WeakKeyDictionary[nn.Module, VectorModule]] = WeakKeyDictionary()

    def __init__(self, module: nn.Module) -> None:
        self._module = ref(module)
        self._bare = module.forward
        self._shares: list[tuple[list[VectorCopy], Copies]] = []
        module.forward = self._forward

    @classmethod
    def share(cls, module: nn.Module, vectors: Sequence[VectorCopy], copies: Copies) -> Callable[[], None]:
        """Let a module compute with `vectors` while `copies.on`; returns how to undo that."""
        if module not in cls._all:
            cls._all[module] = cls(module)
        own, entry = cls._all[module], (list(vectors), copies)
        own._shares.append(entry)

        def undo() -> None:
            if entry in own._shares:
                own._shares.remove(entry)
            if not own._shares and cls._all.get(module) is own:
                del cls._all[module]
                module.__dict__.pop("forward", None)

        return undo

    def __deepcopy__(self, memo: object) -> VectorModule:
        return self  # a copy of a model being probed keeps its module's forward, as it would with a plain function

    def _forward(self, *args: Any, **options: Any) -> Any:
        shares = [each for each in self._shares if each[1].on]
        if not shares:
            return self._bare(*args, **options)
        value = next(each for each in (*args, *options.values()) if isinstance(each, Tensor))
        vectors = [vector for own, _ in shares for vector in own]
        copies, dtype = shares[0][1], value.dtype
        narrow = any(vector.stored.dtype.itemsize < 4 for vector in vectors)
        with self._others_in_fp32(vectors) if narrow else nullcontext():
            count, rows, found = copies.count, value.shape[0], []

            def parts(each: Any) -> Sequence[Any]:
                """What each probe is given of an input: its rows of what has the rows of the batch, else the whole."""
                each = _wide(each) if narrow else each
                of_rows = isinstance(each, Tensor) and each.ndim > 0 and each.shape[0] == rows
                return copies.split(each) if of_rows else (each,) * count

            given, named = [parts(each) for each in args], {key: parts(each) for key, each in options.items()}
            try:
                for probe in range(count):
                    for vector in vectors:
                        vector.use(probe)
                    own = {key: each[probe] for key, each in named.items()}
                    found.append(self._bare(*(each[probe] for each in given), **own))
            finally:
                for vector in vectors:
                    if vector.site.kind == "module":
                        vector.rest()
        whole = found[0] if len(found) == 1 else torch.cat(found)
        return whole.to(dtype) if narrow else whole

    @contextmanager
    def _others_in_fp32(self, vectors: Sequence[VectorCopy]) -> Iterator[None]:
        module = self._module()
        assert module is not None
        perturbed = {id(vector.site.parameter) for vector in vectors}
        others = [each for each in module.parameters(recurse=False) if id(each) not in perturbed]
        kept = [each.data for each in others]
        try:
            for each in others:
                each.data = _wide(each.data)
            yield
        finally:
            for each, data in zip(others, kept, strict=True):
                each.data = data


def _wide(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
