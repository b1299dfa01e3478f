"""How much memory a run will hold, and the schedule that makes it fit."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

from optaware.errors import InputError, ProblemList
from optaware.models import ModelSize, model_size
from optaware.records import FOFull, FOLoRA, MemoryFit, Method, ModelRef, Schedule

__all__ = ["check_models", "fitted", "memory_bytes", "size_of"]

_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
_BLOCK = 34
"""Bytes that a transformer block keeps per token and unit of width for its backward pass in half precision (Korthikanti
et al., Reducing Activation Recomputation in Large Transformer Models, 2022, equation 1, without the attention
matrix)."""
_FIRST_ORDER = 20
"""Bytes a trained parameter beside its weight: gradient 2, fp32 copy 4, moments 8, fp32 sum of gradients 4, slack 2."""
_FIXED = 0.6e9
"""Libraries and the device's own context."""


@cache
def size_of(ref: ModelRef) -> ModelSize | None:
    """`optaware.models.model_size`, asked once per model."""
    return model_size(ref)


def check_models(models: Iterable[ModelRef]) -> None:
    """See that models can be had, as far as that is known without a network.

    Raises:
        InputError: All that are surely not there, at once.
    """
    problems = ProblemList()
    for model in models:
        with problems.collecting():
            size_of(model)
    problems.raise_if_any()


def memory_bytes(ref: ModelRef, method: Method, schedule: Schedule, tokens_per_row: float | None = None) -> int | None:
    """Estimate of a run's peak memory: weights, and what training holds beside them.

    Forward-only: two blocks' activations and the logits of the rows in flight. AdamW: gradients, fp32 copies and
    moments of what is trained, and the activations of all blocks. It is a rule of thumb: within a factor of about 1.5
    where the sizes of the model are known.

    Args:
        ref: The model.
        method: How it is trained.
        schedule: Batch, its parts and the longest row.
        tokens_per_row: Typical length of a row; None: the longest that the schedule allows.

    Returns:
        Bytes; None when the size of the model is unknown.
    """
    size = size_of(ref)
    if size is None:
        return None
    wide = _BYTES[ref.dtype]
    length = schedule.max_length if tokens_per_row is None else min(tokens_per_row, schedule.max_length)
    tokens = length * schedule.batch_size / schedule.accumulation
    logits = tokens * size.vocabulary * 4
    block = tokens * size.hidden * _BLOCK * wide / 2
    held = size.parameters * wide + _FIXED + logits
    if isinstance(method, FOFull):
        kept = 2 * size.layers**0.5 if method.gradient_checkpointing else size.layers
        return int(held + size.parameters * _FIRST_ORDER + block * kept + logits)
    if isinstance(method, FOLoRA):
        trained = size.layers * 7 * 2 * size.hidden * method.rank
        return int(held + trained * _FIRST_ORDER + block * size.layers + logits)
    return int(held + 2 * block)


def fitted(limit: MemoryFit | None, ref: ModelRef, method: Method, schedule: Schedule, where: str) -> Schedule:
    """The schedule with its batch split or halved until the estimate fits; as many tokens are processed either way.

    Source: OAT-Rephrase, section 4.1 (batch halved and steps doubled, or gradient accumulation).

    Raises:
        InputError: It does not fit with one row at a time, or the limit's rule is to refuse.
    """
    if limit is None:
        return schedule
    given = schedule
    while True:
        needed = memory_bytes(ref, method, schedule)
        if needed is None or needed <= limit.limit_gb * 1e9:
            return schedule
        rows = schedule.batch_size // schedule.accumulation
        if limit.when_short == "refuse" or rows <= 1:
            least = memory_bytes(ref, method, given.model_copy(update={"accumulation": given.batch_size})) or 0
            raise InputError.of(
                "memory-short",
                f"{ref.name}, {method.name}, {where}: about {needed / 1e9:.1f} GB of {limit.limit_gb:g} GB",
                f"a run does not fit; row by row it would take about {least / 1e9:.1f} GB",
                "Raise memory.limit_gb, shorten max_length, or leave the method or the model out.",
            )
        schedule = _smaller(schedule, limit.when_short)


def _smaller(schedule: Schedule, rule: str) -> Schedule:
    rows = schedule.batch_size // schedule.accumulation
    part = max(size for size in range(1, rows // 2 + 1) if rows % size == 0)
    if rule == "split":
        return schedule.model_copy(update={"accumulation": schedule.batch_size // part})
    times = rows // part
    changes = {"batch_size": schedule.batch_size // times, "steps": schedule.steps * times}
    return schedule.model_copy(update={**changes, "eval_every": schedule.eval_every * times})
