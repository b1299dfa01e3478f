"""A batch in tensors of fixed shape and address, so that one captured graph serves all batches of like size."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from optaware.models import EncodedExample

__all__ = ["Batch", "Shape", "fill", "make_batch", "shape_of"]


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
    """See `models/_layout.py: Layout` for ids, positions, segments, columns, tokens and lengths; `share` is fp64, ()."""

    ids: Tensor
    positions: Tensor
    segments: Tensor
    columns: Tensor
    tokens: Tensor
    lengths: Tensor
    labels: Tensor
    share: Tensor
    flat: Tensor
    keep: int
    contrast: bool
    normalise: bool


def shape_of(examples: Sequence[EncodedExample], objective: Literal["options", "language-model"]) -> Shape:
    """The shape of a batch; lengths go in steps of an eighth of the next power of two, at least 16."""
    chosen = [_options(example, objective) for example in examples]
    tails = [sum(len(option) - 1 for option in options) for options in chosen]
    longest = max(len(example.prompt_ids) + tail for example, tail in zip(examples, tails, strict=True))
    step = max(16, 1 << max(0, math.ceil(math.log2(longest)) - 3))
    tokens = max(len(option) for options in chosen for option in options)
    contrast = objective == "options"
    return Shape(
        rows=len(examples),
        length=-(-longest // step) * step,
        keep=1 + max(tails),
        options=max(map(len, chosen)),
        tokens=tokens,
        contrast=contrast,
        normalise=not (contrast and tokens == 1),
    )


def _options(example: EncodedExample, objective: str) -> tuple[tuple[int, ...], ...]:
    return example.option_ids if objective == "options" else (example.option_ids[example.label],)


def _sizes(shape: Shape) -> list[tuple[int, ...]]:
    long, options = (shape.rows, shape.length), (shape.rows, shape.options)
    return [long, long, long, (*options, shape.tokens), (*options, shape.tokens), options, (shape.rows, 1), ()]


def make_batch(shape: Shape, device: torch.device) -> Batch:
    """An empty batch on the device; all its numbers lie in one tensor, `flat`, and arrive in one copy."""
    sizes = [math.prod(size) for size in _sizes(shape)]
    flat = torch.zeros(sum(sizes), dtype=torch.int64, device=device)
    parts = [part.view(size) for part, size in zip(flat.split(sizes), _sizes(shape), strict=True)]
    share = parts[-1].view(torch.float64)
    return Batch(
        *parts[:-1],
        share,  # type: ignore[call-arg]
        flat,
        shape.keep,
        shape.contrast,
        shape.normalise,
    )


def fill(examples: Sequence[EncodedExample], shape: Shape, share: float, pin: bool) -> Tensor:
    """The numbers of a batch in host memory, to be copied to `Batch.flat`."""
    objective: str = "options" if shape.contrast else "language-model"
    flat = torch.zeros(sum(math.prod(size) for size in _sizes(shape)), dtype=torch.int64, pin_memory=pin)
    parts = [part.view(size) for part, size in zip(
        flat.split([math.prod(size) for size in _sizes(shape)]), _sizes(shape), strict=True
    )]  # fmt: skip
    ids, positions, segments, columns, tokens, lengths, labels, _ = parts
    segments.fill_(-1)
    for at, example in enumerate(examples):
        prompt, options = list(example.prompt_ids), _options(example, objective)
        row, place, segment = list(prompt), list(range(len(prompt))), [0] * len(prompt)
        for number, option in enumerate(options, start=1):
            row += option[:-1]
            place += range(len(prompt), len(prompt) + len(option) - 1)
            segment += [number] * (len(option) - 1)
        padding = shape.length - len(row)
        ids[at, padding:] = torch.tensor(row)
        positions[at, padding:] = torch.tensor(place)
        segments[at, padding:] = torch.tensor(segment)
        fork = padding + len(prompt) - 1 - (shape.length - shape.keep)
        start = fork + 1
        for number, option in enumerate(options):
            tail = len(option) - 1
            columns[at, number, : tail + 1] = torch.tensor([fork, *range(start, start + tail)])
            tokens[at, number, : tail + 1] = torch.tensor(option)
            lengths[at, number] = len(option)
            start += tail
        labels[at, 0] = example.label if shape.contrast else 0
    parts[-1].view(torch.float64).fill_(share)
    return flat
