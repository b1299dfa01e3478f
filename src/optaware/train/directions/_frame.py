"""What a step's z means besides its seed: which layers it touches, which entries, and how a batch is divided."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from optaware.errors import ModelError, Problem
from optaware.train._seeds import derive_seed, generator

__all__ = ["Copies", "active_names", "seen_by_row"]

_BLOCK = re.compile(r"\.(?:layers|h|blocks|block|layer)\.(\d+)\.")


@dataclass
class Copies:
    """How the rows of a forward pass are divided between probes.

    Attributes:
        on: Whether the model computes with perturbed weights.
        count: Probes P in a forward pass.
        rows: Rows of the whole batch, P·B, as last seen.
    """

    on: bool = False
    count: int = 1
    rows: int = field(default=1, repr=False)

    def split(self, value: Tensor) -> tuple[Tensor, ...]:
        """The rows of each probe. What comes once for all rows (positions) is given to every row first."""
        return self.whole(value).chunk(self.count)

    def whole(self, value: Tensor) -> Tensor:
        """`value` with one row for each row of the batch."""
        if self.count == 1:
            return value
        if value.shape[0] == 1:
            return value.expand(self.rows, *value.shape[1:])
        if value.shape[0] % self.count:
            raise ModelError(
                Problem(
                    "batch-not-divisible",
                    f"{value.shape[0]} rows for {self.count} probes",
                    "in a batched probe each module must get every row of the batch once per probe",
                    'Use batching: "off" for this model.',
                )
            )
        self.rows = value.shape[0]
        return value


def seen_by_row(names: Iterable[str]) -> bool:
    """Whether each of these parameters acts on the rows of a batch one by one.

    PEFT's soft prompts and prefixes do not: their embedding is looked up once and then repeated for all rows.
    """
    return not any("prompt_encoder." in name for name in names)


def active_names(names: Iterable[str], layers: int | None, seed: int, step: int) -> frozenset[str] | None:
    """Names of the parameters in the blocks that are perturbed at a step; None: all.

    `layers` of the model's blocks are drawn without replacement; what belongs to no block (embeddings, final norm) is
    left out then.
    """
    if layers is None:
        return None
    blocks = {name: int(found[1]) for name in names if (found := _BLOCK.search(f".{name}"))}
    numbers = sorted(set(blocks.values()))
    order = torch.randperm(len(numbers), generator=generator(derive_seed(seed, "layers", step))).tolist()
    chosen = {numbers[index] for index in order[:layers]}
    if not chosen:
        raise ModelError(
            Problem(
                "no-blocks",
                f"layers: {layers}",
                "no parameter's name tells a block (…layers.3.…, …h.3.…), so none can be drawn",
                "Leave `layers` out, or choose parameters with `include`.",
            )
        )
    return frozenset(name for name, number in blocks.items() if number in chosen)
