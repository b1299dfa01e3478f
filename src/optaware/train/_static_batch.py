"""A batch in tensors of fixed shape and address, so that one captured graph serves all batches of like size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from optaware.models import EncodedExample

__all__ = ["Batch", "Filler", "Shape", "make_batch", "shape_of"]

_MOST_ROWS = 8192


@dataclass(frozen=True)
class Shape:
    """What a captured graph is for.

    Attributes:
        rows: Examples.
        length: Positions of a row, rounded up.
        keep: Positions at the end of a row that logits are read at.
        options: Options of an example, at most.
        tokens: Tokens of an option, at most.
        contrast: Whether the loss compares the options (else it is that of the correct one).
        normalise: Whether the log-normaliser over the vocabulary is needed: not for the contrast of one-token options,
            from which it cancels.
    """

    rows: int
    length: int
    keep: int
    options: int
    tokens: int
    contrast: bool
    normalise: bool


@dataclass(frozen=True)
class Batch:
    """See `models/_layout.py: Layout` for most fields; `share` is the batch's weight in the loss, fp64, ()."""

    shape: Shape
    ids: Tensor
    positions: Tensor
    segments: Tensor
    columns: Tensor
    tokens: Tensor
    lengths: Tensor
    labels: Tensor
    share: Tensor
    flat: Tensor

    @property
    def keep(self) -> int:
        """See `Shape`."""
        return self.shape.keep

    @property
    def contrast(self) -> bool:
        """See `Shape`."""
        return self.shape.contrast

    @property
    def normalise(self) -> bool:
        """See `Shape`."""
        return self.shape.normalise


def shape_of(examples: Sequence[EncodedExample], objective: Literal["options", "language-model"]) -> Shape:
    """The shape of a batch, rounded up so that few shapes serve a data set.

    Lengths go in steps of an eighth of the next power of two, at least 16; kept positions in eights and tokens of an
    option in fours, unless all options have one token.
    """
    chosen = [_options(example, objective) for example in examples]
    tails = [sum(len(option) - 1 for option in options) for options in chosen]
    longest = max(len(example.prompt_ids) + tail for example, tail in zip(examples, tails, strict=True))
    length = _up(longest, max(16, 1 << max(0, math.ceil(math.log2(longest)) - 3)))
    tokens = max(len(option) for options in chosen for option in options)
    contrast = objective == "options"
    return Shape(
        rows=len(examples),
        length=length,
        keep=1 if tokens == 1 else min(length, _up(1 + max(tails), 8)),
        options=max(map(len, chosen)),
        tokens=1 if tokens == 1 else _up(tokens, 4),
        contrast=contrast,
        normalise=not (contrast and tokens == 1),
    )


def _up(value: int, step: int) -> int:
    return -(-value // step) * step


def _options(example: EncodedExample, objective: str) -> tuple[tuple[int, ...], ...]:
    return example.option_ids if objective == "options" else (example.option_ids[example.label],)


def _sizes(shape: Shape) -> list[tuple[int, ...]]:
    long, options = (shape.rows, shape.length), (shape.rows, shape.options)
    return [long, long, long, (*options, shape.tokens), (*options, shape.tokens), options, (shape.rows, 1), ()]


def make_batch(shape: Shape, device: torch.device) -> Batch:
    """An empty batch on the device; all its numbers lie in one tensor, `flat`, and arrive in one copy."""
    sizes = [math.prod(size) for size in _sizes(shape)]
    flat = torch.zeros(sum(sizes), dtype=torch.int64, device=device)
    parts = [part.view(size) for part, size in zip(torch.split(flat, sizes), _sizes(shape), strict=True)]
    share = parts[-1].view(torch.float64)
    return Batch(shape, *parts[:-1], share, flat)  # type: ignore[call-arg]


class Filler:
    """Makes the host's side of batches; what an example's rows look like is kept, since epochs repeat them.

    Args:
        pin: Whether the numbers go to a GPU.
    """

    def __init__(self, pin: bool) -> None:
        self._pin = pin
        self._kept: dict[tuple[int, Shape], tuple[EncodedExample, Any]] = {}

    def __call__(self, examples: Sequence[EncodedExample], shape: Shape, share: float) -> Tensor:
        """The numbers of a batch in host memory, to be copied to `Batch.flat`."""
        sizes = _sizes(shape)
        flat = torch.empty(sum(map(math.prod, sizes)), dtype=torch.int64, pin_memory=self._pin)
        numbers = flat.numpy()
        rows = np.stack([self._row(example, shape) for example in examples])
        column = start = 0
        for size in sizes[:-1]:
            count = math.prod(size)
            width = count // shape.rows
            numbers[start : start + count].reshape(shape.rows, width)[:] = rows[:, column : column + width]
            column, start = column + width, start + count
        numbers[start:].view(np.float64)[0] = share
        return flat

    def _row(self, example: EncodedExample, shape: Shape) -> Any:
        key = (id(example), shape)
        found = self._kept.get(key)
        if found is None:
            if len(self._kept) >= _MOST_ROWS:
                self._kept.clear()
            found = self._kept[key] = (example, _row(example, shape))  # holding the example keeps its id its own
        return found[1]


def _row(example: EncodedExample, shape: Shape) -> Any:
    """ids, positions, segments, columns, tokens, lengths and label of one example, one after another, int64."""
    prompt, options = list(example.prompt_ids), _options(example, "options" if shape.contrast else "language-model")
    row, place, segment = list(prompt), list(range(len(prompt))), [0] * len(prompt)
    columns, tokens, lengths = [], [], []
    padding = shape.length - len(prompt) - sum(len(option) - 1 for option in options)
    fork = padding + len(prompt) - 1 - (shape.length - shape.keep)
    start = fork + 1
    for number, option in enumerate(options, start=1):
        tail, rest = len(option) - 1, [0] * (shape.tokens - len(option))
        row += option[:-1]
        place += range(len(prompt), len(prompt) + tail)
        segment += [number] * tail
        columns += [fork, *range(start, start + tail), *rest]
        tokens += [*option, *rest]
        lengths.append(len(option))
        start += tail
    missing = shape.options - len(options)
    none, empty = [0] * padding, [0] * (missing * shape.tokens)
    label = example.label if shape.contrast else 0
    parts = (none, row, none, place, [-1] * padding, segment, columns, empty, tokens, empty, lengths, [0] * missing)
    return np.fromiter((value for part in (*parts, [label]) for value in part), np.int64)
