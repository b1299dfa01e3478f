"""Batched generation for many prompts that begin alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from optaware.errors import ProblemList
from optaware.models._decode import Decoder, Generation, Row
from optaware.models._introspect import evaluating, unwrap
from optaware.models._kept_prefixes import KeptPrefixes

__all__ = ["Generation", "generate"]


def generate(
    model: nn.Module,
    tokenizer: Any,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int | Sequence[int],
    temperature: float = 0.0,
    seeds: Sequence[int] | None = None,
    stop: Sequence[str] = (),
    batch_size: int | None = None,
    on_done: Callable[[int, Generation], None] | None = None,
    kept: KeptPrefixes | None = None,
) -> list[Generation]:
    """Generate a continuation of each prompt, greedily or by sampling.

    Prompts that begin alike form groups (a rewriter's instructions and few-shot examples, then the row). A group's
    common prefix is run once per call; its keys and values are stored once and all rows attend to them together.
    What follows it is batched by length. A row that is finished leaves its batch.

    With `temperature` 0 the most probable token is taken. Otherwise token v is drawn from
    `p = softmax(z / temperature)` in fp64 as the first with `Σ_{w ≤ v} p_w > u`, u uniform from the row's own
    generator; so a row's draws do not depend on the other rows, save by the rounding of z in another batch shape.
    No penalty, top-k or top-p is applied; those of the model's generation config are not used.

    Args:
        model: A causal language model with attention in all layers.
        tokenizer: Its tokenizer.
        prompts: Token ids, special tokens included.
        max_new_tokens: Most tokens to generate, for all prompts or one number for each.
        temperature: 0 for greedy.
        seeds: One seed per prompt; needed when `temperature` is above 0.
        stop: Strings that end a text.
        batch_size: Rows at once. More rows make better use of the processor; each takes memory for its own tokens
            only, not for the prefix. None: as many as keep that within 1 GiB, at most 256.
        on_done: Called with the prompt's index and its generation as soon as that is finished.
        kept: Where prefixes stay for the next call; only for a model whose weights do not change meanwhile. Logits then
            differ by rounding from those of a call without it, for the prefix is computed in other pieces.

    Returns:
        One generation per prompt, in the prompts' order.

    Raises:
        InputError: A prompt without tokens, longer than the model's positions, or arguments that do not fit together.
        ModelError: The model does not keep a key-value cache that rows can be dropped from.
    """
    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
    _check(model, prompts, limits, temperature, seeds, batch_size)
    rows = [
        Row(index, prompt, limit, torch.Generator().manual_seed(seeds[index]) if seeds and temperature > 0 else None)
        for index, (prompt, limit) in enumerate(zip(prompts, limits, strict=True))
    ]
    decoder = Decoder(model, tokenizer, temperature, tuple(stop), on_done, kept)
    results: dict[int, Generation] = {}
    with evaluating(model):
        for group in decoder.groups(rows):
            results |= decoder.run([rows[index] for index in group.indices], group.shared, batch_size)
    return [results[index] for index in range(len(prompts))]


def _check(
    model: nn.Module,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    temperature: float,
    seeds: Sequence[int] | None,
    batch_size: int | None,
) -> None:
    problems = ProblemList()
    if len(limits) != len(prompts):
        problems.add(
            "count-mismatch",
            f"{len(limits)} values of max_new_tokens for {len(prompts)} prompts",
            "each prompt needs one",
            "Give one number for all prompts, or one for each.",
        )
    if seeds is not None and len(seeds) != len(prompts):
        problems.add(
            "count-mismatch",
            f"{len(seeds)} seeds for {len(prompts)} prompts",
            "each prompt needs one",
            "Give one seed for each prompt.",
        )
    if not temperature >= 0:
        problems.add("temperature", f"temperature {temperature}", "it must be at least 0", "Give 0 for greedy.")
    elif temperature > 0 and seeds is None:
        problems.add(
            "seeds-missing",
            f"temperature {temperature} without seeds",
            "sampling draws from a seed per prompt, never from a global generator",
            "Give one seed for each prompt.",
        )
    if (batch_size is not None and batch_size < 1) or any(limit < 1 for limit in limits):
        problems.add(
            "not-positive",
            f"batch_size {batch_size}, max_new_tokens {min(limits, default=1)}",
            "both must be at least 1",
            "Give positive numbers.",
        )
    positions = getattr(unwrap(model).config.get_text_config(), "max_position_embeddings", None)
    for index, (prompt, limit) in enumerate(zip(prompts, limits, strict=False)):
        if not prompt:
            problems.add("empty-prompt", f"prompt {index}", "it has no tokens", "Give it at least one token.")
        elif positions is not None and len(prompt) + limit > positions:
            problems.add(
                "prompt-too-long",
                f"prompt {index} of {len(prompt)} tokens and {limit} new ones",
                f"the model has {positions} positions",
                "Shorten the prompt or lower max_new_tokens.",
            )
    problems.raise_if_any()
