"""One matrix under dense noise: its perturbed copies inside the forward pass, its updates in the stored weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from optaware.train import noise
from optaware.train.directions._frame import Copies
from optaware.train.directions._sites import Kind, MatrixSite, embedding_scale
from optaware.train.noise import Distribution, Mask, Remedy

__all__ = ["DenseWeight", "Scratch"]

_LARGEST = 1 << 22
"""Entries of a perturbed copy that are made at a time, so that it is used while a cache still holds it."""

_ROWS = 256
"""Blocks have a multiple of so many rows."""


class Scratch:
    """Memory that all perturbed copies are made in, one after the other."""

    def __init__(self) -> None:
        self._held: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def take(self, like: Tensor, count: int, shape: Sequence[int]) -> Tensor:
        """(count, *shape), uninitialised; void at the next call."""
        key, size = (like.device, like.dtype), count
        for length in shape:
            size *= length
        if key not in self._held or self._held[key].numel() < size:
            self._held[key] = torch.empty(size, dtype=like.dtype, device=like.device)
        return self._held[key].as_strided((count, *shape), _strides(count, shape))


def _strides(count: int, shape: Sequence[int]) -> list[int]:
    strides = [1]
    for length in reversed(shape):
        strides.insert(0, strides[0] * length)
    return strides


class DenseWeight:
    """The model computes with `W + scale·z` for a parameter W; a probe makes a rounded copy and writes no weight.

    Args:
        name: Of the parameter.
        parameter: W.
        distribution: Of z.
        remedy: How moves survive rounding.
        limit: Magnitude of the largest weight that is perturbed; None: all are.
    """

    def __init__(
        self, name: str, parameter: nn.Parameter, distribution: Distribution, remedy: Remedy, limit: float | None
    ) -> None:
        self.name, self.parameter, self.distribution = name, parameter, distribution
        data = parameter.data
        self.remedy: Remedy = remedy if data.dtype.itemsize < 4 else "none"
        self.beside: Tensor | None = None
        if self.remedy == "residual":
            self.beside = torch.zeros_like(data)
        elif self.remedy == "master":
            self.beside = data.float().clone()
        self.limit = limit
        self.mask = noise.NO_MASK if limit is None else Mask(1, limit)
        self.probes: list[tuple[int, float]] = []  # key and scale of each probe of the coming forward pass
        self.kept: dict[int, Tensor] | None = None  # z by key, where noise is stored

    def z(self, key: int) -> Tensor:
        """z of this step, masked, fp32."""
        if self.kept is not None and key in self.kept:
            return self.kept[key]
        data = self.parameter.data
        drawn = noise.fill(key, data.shape, self.distribution, device=data.device)
        drawn = noise.masked(drawn, data, self.mask)
        if self.kept is not None:
            self.kept[key] = drawn
        return drawn

    @property
    def _source(self) -> Callable[[int], Tensor] | None:
        return None if self.kept is None else self.z

    def show(self, out: Tensor, rows: slice | None = None) -> None:
        """Write the perturbed copies (of some rows) for all probes."""
        data = self.parameter.data if rows is None else self.parameter.data[rows]
        start = 0 if rows is None else rows.start
        noise.show(data, out, self.probes, self.distribution, self.mask, self._source, start)

    def move(self, moves: Sequence[tuple[int, float]], factor: float, rounding_key: int) -> None:
        """`W ← factor·W + Σ amount·z(key)`."""
        noise.move(
            self.parameter.data,
            self.beside,
            moves,
            factor,
            self.distribution,
            self.mask,
            self.remedy,
            rounding_key,
            self._source,
        )

    def attach(self, site: MatrixSite, copies: Copies, scratch: Scratch) -> list[Callable[[], None]]:
        """Let the site's modules compute with the perturbed copies while `copies.on`; returns how to undo that."""
        return [self._replace(module, kind, copies, scratch) for module, kind in site.users]

    def _replace(self, module: nn.Module, kind: Kind, copies: Copies, scratch: Scratch) -> Callable[[], None]:
        bare = module.forward
        run = {"linear": self._linear, "conv1d": self._conv1d, "embedding": self._embedding}[kind]

        def forward(value: Tensor, *args: Any, **options: Any) -> Any:
            return run(module, value, copies, scratch) if copies.on and self.probes else bare(value, *args, **options)

        module.forward = forward

        def undo() -> None:
            if module.__dict__.get("forward") is forward:
                del module.__dict__["forward"]

        return undo

    def _linear(self, module: Any, value: Tensor, copies: Copies, scratch: Scratch) -> Tensor:
        # torch multiplies strided bf16 inputs (the last position of each row) on a path that is a hundred times slower.
        parts = [part.contiguous() for part in copies.split(value)]
        height, width = self.parameter.shape
        step = max(_ROWS, _LARGEST // max(1, width * len(parts)) // _ROWS * _ROWS)
        blocks = []
        for start in range(0, height, step):
            rows = slice(start, min(height, start + step))
            made = scratch.take(self.parameter.data, len(parts), (rows.stop - start, width))
            self.show(made, rows)
            bias = None if module.bias is None else module.bias[rows]
            blocks.append([linear(part, weight, bias) for part, weight in zip(parts, made, strict=True)])
        columns = [block[0] if len(block) == 1 else torch.cat(block) for block in blocks]
        return columns[0] if len(columns) == 1 else torch.cat(columns, dim=-1)

    def _conv1d(self, module: Any, value: Tensor, copies: Copies, scratch: Scratch) -> Tensor:
        parts = copies.split(value)
        made = scratch.take(self.parameter.data, len(parts), self.parameter.shape)
        self.show(made)
        found = []
        for part, weight in zip(parts, made, strict=True):
            flat = torch.addmm(module.bias, part.reshape(-1, part.shape[-1]), weight)
            found.append(flat.view(*part.shape[:-1], weight.shape[1]))
        return found[0] if len(found) == 1 else torch.cat(found)

    def _embedding(self, module: Any, value: Tensor, copies: Copies, scratch: Scratch) -> Tensor:
        used, places = torch.unique(copies.whole(value), return_inverse=True)
        stored = self.parameter.data[used]
        exact = torch.promote_types(stored.dtype, torch.float32)
        drawn: dict[int, Tensor] = {}
        found = []
        for (key, scale), part in zip(self.probes, places.chunk(copies.count), strict=True):
            if key not in drawn:
                if self.kept is not None:
                    drawn[key] = self.z(key)[used]
                else:
                    fresh = noise.fill(key, self.parameter.shape, self.distribution, rows=used)
                    drawn[key] = noise.masked(fresh, stored, self.mask, used)
            scale = float(torch.tensor(scale, dtype=exact))
            rows = (stored.to(exact) + drawn[key].to(exact) * scale).to(stored.dtype)
            found.append(embedding(part, rows) * embedding_scale(module))
        return found[0] if len(found) == 1 else torch.cat(found)
