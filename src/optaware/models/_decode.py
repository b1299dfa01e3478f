"""The loop behind `generate`: prefix, batch, step, and rows leaving as they finish."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from optaware.errors import ModelError
from optaware.models._ends import end_tokens, find_stop
from optaware.models._head import lay_out_for_head
from optaware.models._introspect import attention_window, cache_argument, forward_arguments, tolerance, unwrap
from optaware.models._kept_prefixes import KeptPrefixes
from optaware.models._memory import free_cached_memory, is_out_of_memory
from optaware.models._prefix import PrefixGroup, group_by_prefix
from optaware.models._shared_attention import Prefix, RowCache, sharing

__all__ = ["Decoder", "Generation", "Row"]

_KNOWN = ("sdpa", "eager")
_CACHE_BYTES = 1 << 30
_MOST_ROWS = 256
_PREFILL_CPU, _PREFILL_GPU = 512, 8192
_WORTH_KEEPING = 32
_UNLIMITED = sys.maxsize

_log = logging.getLogger("optaware")

_can_share: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


@dataclass(frozen=True)
class Generation:
    """What was generated for one prompt.

    Attributes:
        token_ids: The tokens generated, without an end token.
        text: Their text without special tokens, cut before the first stop string.
        finish_reason: `"stop"` after an end token or stop string, `"length"` after `max_new_tokens`.
        prompt_tokens: Tokens of the prompt.
        completion_tokens: Tokens generated, an end token included.
        shared_prefix_tokens: Leading tokens of the prompt that were computed once for its whole group.
    """

    token_ids: tuple[int, ...]
    text: str
    finish_reason: Literal["stop", "length"]
    prompt_tokens: int
    completion_tokens: int
    shared_prefix_tokens: int


@dataclass
class Row:
    """One prompt while it is generated for."""

    index: int
    prompt: Sequence[int]
    limit: int
    draw: torch.Generator | None
    tokens: list[int] = field(default_factory=list)

    def begin_again(self) -> None:
        """Forget what was generated; the draws begin where they began."""
        self.tokens.clear()
        if self.draw is not None:
            self.draw.manual_seed(self.draw.initial_seed())


class Decoder:
    """Generates for rows of one call: groups of a common prefix, batches of like length, one token at a time."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        temperature: float,
        stop: tuple[str, ...],
        on_done: Callable[[int, Generation], None] | None,
        kept: KeptPrefixes | None = None,
    ) -> None:
        self.kept = kept
        self.model = model
        self.tokenizer = tokenizer
        self.temperature = temperature
        self.stop = stop
        self.on_done = on_done
        self.ends = end_tokens(model, tokenizer)
        self.device = next(model.parameters()).device
        self.arguments = forward_arguments(model)
        self.cache_argument = cache_argument(model) or ""
        if not self.cache_argument or getattr(unwrap(model), "_is_stateful", False):
            raise ModelError.of(
                "generation-unsupported",
                type(unwrap(model)).__name__,
                "it keeps a recurrent state, not a key-value cache that finished rows can be dropped from",
                "Use a transformer, or serve this model behind an OpenAI-compatible endpoint.",
            )
        lay_out_for_head(model)
        self.longest_stop = max(map(len, stop), default=0)
        self.most_rows = _UNLIMITED

    def groups(self, rows: Sequence[Row]) -> list[PrefixGroup]:
        """Rows that share a prefix; one group without sharing where the model does not allow it.

        A row alone shares what is kept of earlier calls.
        """
        groups = group_by_prefix([row.prompt for row in rows])
        if self.kept is not None:
            for place, group in enumerate(groups):
                if len(group.indices) == 1:
                    prompt = rows[group.indices[0]].prompt
                    groups[place] = PrefixGroup(group.indices, self.kept.find(prompt[:-1])[0])
        longest = max((len(row.prompt) + row.limit for row in rows), default=0)
        if all(group.shared == 0 for group in groups) or self._may_share(longest):
            return groups
        return [PrefixGroup(tuple(range(len(rows))), 0)]

    def run(self, rows: list[Row], shared: int, batch_size: int | None) -> dict[int, Generation]:
        """Generate for rows whose prompts begin with the same `shared` tokens; generations by the row's index."""
        prefix = self._prefix(rows[0].prompt[:shared]) if shared else None
        rows = sorted(rows, key=lambda row: len(row.prompt))
        batches = -(-len(rows) // (batch_size or self._fitting(rows, shared)))
        edges = [len(rows) * batch // batches for batch in range(batches + 1)]
        results: dict[int, Generation] = {}
        with sharing(self.model, prefix) if prefix else nullcontext():
            for start, end in pairwise(edges):
                self._within_room(rows[start:end], prefix, shared, results)
        return results

    def _within_room(self, rows: list[Row], prefix: Prefix | None, shared: int, results: dict[int, Generation]) -> None:
        """Generate for a batch; when the device's memory is used up, for what is left of it in parts of half the size.

        Rows that had finished stay so; the others begin again. Later batches are not larger than what had room.
        """
        if len(rows) <= self.most_rows:
            try:
                self._batch(rows, prefix, shared, results)
            except RuntimeError as error:
                if not is_out_of_memory(error) or len(rows) == 1:
                    raise
            else:
                return
            self.most_rows = (len(rows) + 1) // 2
            _log.warning("out of memory with %d rows at once; going on with at most %d", len(rows), self.most_rows)
            free_cached_memory()
            rows = [row for row in rows if row.index not in results]
            for row in rows:
                row.begin_again()
        most = self.most_rows  # as it is now: the first part may find that even fewer have room
        for start in range(0, len(rows), most):
            self._within_room(rows[start : start + most], prefix, shared, results)

    def _prefix(self, tokens: Sequence[int]) -> Prefix:
        """Keys and values of the shared tokens; those that an earlier call computed are not computed again."""
        known, prefix = self.kept.find(tokens) if self.kept is not None else (0, None)
        if prefix is None or known < len(tokens):
            cache = RowCache(len(tokens) - known)
            with sharing(self.model, prefix) if prefix is not None else nullcontext():
                self._forward([tokens[known:]], cache, prefix, known)
            own = cache.prefix()
            prefix = (
                own
                if prefix is None
                else [
                    (torch.cat([keys, more_keys], dim=2), torch.cat([values, more_values], dim=2))
                    for (keys, values), (more_keys, more_values) in zip(prefix, own, strict=True)
                ]
            )
        if self.kept is not None and len(tokens) - known >= _WORTH_KEEPING:
            self.kept.keep(tokens, prefix)
        return prefix

    def _batch(self, rows: list[Row], prefix: Prefix | None, shared: int, results: dict[int, Generation]) -> None:
        logits, visible, cache = self._prefill(rows, prefix, shared)
        while True:
            self._choose(logits, rows)
            staying = []
            for place, row in enumerate(rows):
                if (done := self._finished(row, shared)) is None:
                    staying.append(place)
                    continue
                results[row.index] = done
                if self.on_done:
                    self.on_done(row.index, done)
            if not staying:
                return
            if len(staying) < len(rows):
                kept = torch.tensor(staying, device=self.device)
                cache.keep(kept)
                visible = visible[kept]
                rows = [rows[place] for place in staying]
            visible = torch.cat([visible, visible.new_ones(len(rows), 1)], dim=1)
            logits = self._step(rows, cache, visible, prefix)

    def _prefill(self, rows: list[Row], prefix: Prefix | None, shared: int) -> tuple[Tensor, Tensor, RowCache]:
        """Run what follows the prefix, a few rows at a time: less padding and memory, and no less speed."""
        width = len(rows[-1].prompt) - shared
        capacity = width + max(row.limit for row in rows) - 1
        step = max(1, (_PREFILL_GPU if self.device.type == "cuda" else _PREFILL_CPU) // width)
        caches, logits, masks = [], [], []
        for start in range(0, len(rows), step):
            texts = [row.prompt[shared:] for row in rows[start : start + step]]
            cache = RowCache(capacity if step >= len(rows) else len(texts[-1]))
            part, visible = self._forward(texts, cache, prefix, shared)
            caches.append(cache)
            logits.append(part)
            masks.append(nn.functional.pad(visible, (width - visible.shape[1], 0)))
        cache = RowCache.joined(caches, capacity) if len(caches) > 1 else caches[0]
        return torch.cat(logits), torch.cat(masks), cache

    def _fitting(self, rows: list[Row], shared: int) -> int:
        """How many rows may run at once so that their own keys and values fit the memory meant for them."""
        config = unwrap(self.model).config.get_text_config()
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        dtype = next(self.model.parameters()).dtype
        token_bytes = int(2 * config.num_hidden_layers * heads * size * dtype.itemsize)
        longest = max(len(row.prompt) + row.limit for row in rows) - shared
        return max(1, min(_MOST_ROWS, _CACHE_BYTES // (token_bytes * longest)))

    def _forward(
        self, texts: Sequence[Sequence[int]], cache: RowCache, prefix: Prefix | None, start: int
    ) -> tuple[Tensor, Tensor]:
        """Run texts of any lengths, left-padded, from position `start`; logits at the last token `[B, V]`, mask."""
        width = max(map(len, texts))
        ids = torch.tensor([[0] * (width - len(text)) + list(text) for text in texts], device=self.device)
        lengths = torch.tensor([len(text) for text in texts], device=self.device)
        places = torch.arange(width, device=self.device) - (width - lengths)[:, None]
        visible = places >= 0
        return self._logits(ids, places.clamp(min=0) + start, visible, cache, prefix), visible

    def _step(self, rows: list[Row], cache: RowCache, visible: Tensor, prefix: Prefix | None) -> Tensor:
        ids = torch.tensor([[row.tokens[-1]] for row in rows], device=self.device)
        positions = torch.tensor([[len(row.prompt) + len(row.tokens) - 1] for row in rows], device=self.device)
        return self._logits(ids, positions, visible, cache, prefix)

    def _logits(
        self, ids: Tensor, positions: Tensor, visible: Tensor, cache: RowCache, prefix: Prefix | None
    ) -> Tensor:
        inputs: dict[str, Any] = {"input_ids": ids, self.cache_argument: cache, "use_cache": True}
        if prefix is None:
            inputs["attention_mask"] = visible.long()
        else:
            steps, length = ids.shape[1], visible.shape[1]
            causal = torch.ones(steps, length, dtype=torch.bool, device=ids.device).tril(length - steps)
            inputs["attention_mask"] = visible[:, None, None, :] & causal
        if "position_ids" in self.arguments:
            inputs["position_ids"] = positions
        if "logits_to_keep" in self.arguments:
            inputs["logits_to_keep"] = 1
        logits: Tensor = self.model(**inputs).logits
        return logits[:, -1]

    def _choose(self, logits: Tensor, rows: list[Row]) -> None:
        """Append the next token to each row."""
        if self.temperature == 0:
            chosen = logits.argmax(-1).tolist()
        else:
            probabilities = (logits.double() / self.temperature).softmax(-1).cumsum(-1).cpu()
            chosen = []
            for row, cumulative in zip(rows, probabilities, strict=True):
                # Scaled by the last sum, which rounding leaves beside 1, so that a token is always found.
                u = torch.rand((), generator=row.draw, dtype=torch.float64) * cumulative[-1]
                chosen.append(int(torch.searchsorted(cumulative, u, right=True).clamp(max=len(cumulative) - 1)))
        for row, token in zip(rows, chosen, strict=True):
            row.tokens.append(token)

    def _finished(self, row: Row, shared: int) -> Generation | None:
        ended = row.tokens[-1] in self.ends
        tokens = row.tokens[:-1] if ended else row.tokens
        cut = None if not self.stop else self._stopped(tokens)
        if not ended and cut is None and len(row.tokens) < row.limit:
            return None
        text = self._text(tokens)
        return Generation(
            token_ids=tuple(tokens),
            text=text if cut is None else text[:cut],
            finish_reason="length" if cut is None and not ended else "stop",
            prompt_tokens=len(row.prompt),
            completion_tokens=len(row.tokens),
            shared_prefix_tokens=shared,
        )

    def _stopped(self, tokens: list[int]) -> int | None:
        """Where the text is to be cut; only the end is decoded until a stop string is seen there."""
        # A character takes four bytes at most and a token holds one byte at least.
        tail = self._text(tokens[-4 * self.longest_stop - 4 :])
        return None if find_stop(tail, self.stop) is None else find_stop(self._text(tokens), self.stop)

    def _text(self, tokens: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _may_share(self, longest: int) -> bool:
        """Whether the model attends over a shared prefix as it does over a text of its own; found out once."""
        core = unwrap(self.model)
        window = attention_window(core)
        if window is not None and longest > window:
            return False
        if core not in _can_share:
            _can_share[core] = getattr(core.config, "_attn_implementation", None) in _KNOWN and self._probe(core)
        return _can_share[core]

    def _probe(self, core: Any) -> bool:
        """Whether the next-token probabilities after a shared prefix are those without sharing."""
        vocabulary = core.config.get_text_config().vocab_size
        start = [(11 + 7 * step) % vocabulary for step in range(9)]
        ends = [[token % vocabulary for token in end] for end in ([5, 3, 8], [6])]
        expected, _ = self._forward([start + end for end in ends], RowCache(12), None, 0)
        try:
            cache = RowCache(len(start))
            self._forward([start], cache, None, 0)
            with sharing(core, prefix := cache.prefix()):
                got, _ = self._forward(ends, RowCache(3), prefix, len(start))
        except Exception:  # What a model raises at an attention it does not know is its own affair.
            return False
        difference = (got.float().log_softmax(-1) - expected.float().log_softmax(-1)).abs().max()
        return bool(difference <= 4 * tolerance(core))
