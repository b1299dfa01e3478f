"""How prompts and answer options lie in one batch of token rows, and how option scores are read off its logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Layout", "Tree", "lay_out", "option_means", "tree_mask"]

Tree = tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]
"""A prompt and the options that branch off its last token."""

_LOGITS_AT_ONCE = 1 << 24


@dataclass(frozen=True)
class Layout:
    """One row per tree, right-aligned: `[padding | prompt | option 1 but its last token | option 2 but … | …]`.

    An option's last token is predicted but predicts nothing, so it is no input. When all options have one token a row
    is the prompt alone.

    Attributes:
        ids: Token ids, `[R, L]`.
        mask: Whether a position is a token rather than padding, `[R, L]`, bool.
        positions: Position of each token in its own text `prompt + option`, `[R, L]`; padding has 0.
        segments: 0 for the prompt, k for option k counted from 1, -1 for padding, `[R, L]`.
        keep: Logits are needed at the last `keep` positions only.
        columns: For each option token, the kept position that predicts it, `[R, K, T]`.
        tokens: Option tokens, `[R, K, T]`.
        lengths: Tokens of each option, `[R, K]`; 0 where a row has fewer options.
        branches: Whether options must be hidden from each other, which takes `tree_mask`.
        padded: Whether there is any padding.
    """

    ids: Tensor
    mask: Tensor
    positions: Tensor
    segments: Tensor
    keep: int
    columns: Tensor
    tokens: Tensor
    lengths: Tensor
    branches: bool
    padded: bool


def lay_out(trees: Sequence[Tree], pad: int, device: torch.device) -> Layout:
    """Build the layout of `trees`; `pad` may be any valid token id, it is never attended to."""
    widths = [len(prompt) + sum(len(option) - 1 for option in options) for prompt, options in trees]
    width = max(widths)
    keep = 1 + max(w - len(prompt) for w, (prompt, _) in zip(widths, trees, strict=True))
    most = max(len(options) for _, options in trees)
    longest = max(len(option) for _, options in trees for option in options)
    ids, positions, segments, columns, tokens, lengths = [], [], [], [], [], []
    for own, (prompt, options) in zip(widths, trees, strict=True):
        padding = width - own
        row, place, segment = [pad] * padding, [0] * padding, [-1] * padding
        row += prompt
        place += range(len(prompt))
        segment += [0] * len(prompt)
        fork = len(row) - 1 - (width - keep)
        row_columns, row_tokens = [], []
        for number, option in enumerate(options, start=1):
            start = len(row) - (width - keep)
            row += option[:-1]
            place += range(len(prompt), len(prompt) + len(option) - 1)
            segment += [number] * (len(option) - 1)
            rest = [0] * (longest - len(option))
            row_columns.append([fork, *range(start, start + len(option) - 1), *rest])
            row_tokens.append([*option, *rest])
        empty = most - len(options)
        ids.append(row)
        positions.append(place)
        segments.append(segment)
        columns.append(row_columns + [[0] * longest] * empty)
        tokens.append(row_tokens + [[0] * longest] * empty)
        lengths.append([len(option) for option in options] + [0] * empty)
    segment_ids = torch.tensor(segments, device=device)
    return Layout(
        ids=torch.tensor(ids, device=device),
        mask=segment_ids >= 0,
        positions=torch.tensor(positions, device=device),
        segments=segment_ids,
        keep=keep,
        columns=torch.tensor(columns, device=device),
        tokens=torch.tensor(tokens, device=device),
        lengths=torch.tensor(lengths, device=device),
        branches=keep > 1 and most > 1,
        padded=min(widths) < width,
    )


def tree_mask(layout: Layout) -> Tensor:
    """Which position may see which: itself, and what lies before it in the prompt or its own option; `[R, 1, L, L]`.

    Padding sees itself, so that no row of the attention is empty and no kernel divides by zero.
    """
    segments = layout.segments
    size = segments.shape[1]
    earlier = torch.ones(size, size, dtype=torch.bool, device=segments.device).tril()
    own = segments[:, :, None] == segments[:, None, :]
    prompt = (segments == 0)[:, None, :]
    visible = earlier & (own | prompt) & layout.mask[:, None, :]
    return (visible | torch.eye(size, dtype=torch.bool, device=segments.device))[:, None]


def option_means(logits: Tensor, layout: Layout) -> Tensor:
    """Mean log-probability of each option's tokens, `[R, K]`, fp32, -inf where a row has no such option.

    `score[r, k] = (1 / T_k) Σ_t (z[t, y_t] − log Σ_v exp z[t, v])` with logits `z` and option tokens `y`.

    Args:
        logits: Logits at the last `layout.keep` positions, `[R, keep, V]`.
        layout: The layout that the logits were computed on.
    """
    rows = torch.arange(logits.shape[0], device=logits.device)[:, None, None]
    normalizer = _log_normalizer(logits)
    logprobs = logits[rows, layout.columns, layout.tokens].float() - normalizer[rows, layout.columns]
    steps = torch.arange(layout.tokens.shape[2], device=logits.device)
    total = logprobs.masked_fill(steps >= layout.lengths[..., None], 0.0).sum(-1)
    return (total / layout.lengths.clamp(min=1)).masked_fill(layout.lengths == 0, -torch.inf)


def _log_normalizer(logits: Tensor) -> Tensor:
    """`logsumexp` over the vocabulary in fp32, a slice at a time so that no second `[R, keep, V]` in fp32 is held."""
    flat = logits.flatten(0, 1)
    rows = max(1, _LOGITS_AT_ONCE // flat.shape[1])
    parts = [part.float().logsumexp(-1) for part in torch.split(flat, rows)]
    return torch.cat(parts).view(logits.shape[:2])
