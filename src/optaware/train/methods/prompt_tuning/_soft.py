"""A soft prompt before the text of a frozen model: its loss, its projection onto the vocabulary, its way back."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from optaware.errors import ModelError
from optaware.models import EncodedExample, LoadedModel, Objective, OptionScorer
from optaware.records import Prediction, Score

__all__ = ["SoftPrompt", "nearest"]


def nearest(rows: Tensor, table: Tensor, allowed: Tensor) -> Tensor:
    """The most similar token of each row by cosine, among the allowed ones.

    Args:
        rows: `[n, d]`.
        table: Token embeddings, `[V, d]`.
        allowed: Ids that may be chosen, `[m]`, ascending; the first of equals is taken.

    Returns:
        Ids, `[n]`.
    """
    tokens = nn.functional.normalize(table[allowed].float(), dim=-1)
    similarity = nn.functional.normalize(rows.float(), dim=-1) @ tokens.T
    return allowed[similarity.argmax(dim=-1)]


class SoftPrompt:
    """Scores rows with a soft prompt `θ ∈ R^{n×d}` in front of them, as PEFT's prompt tuning does.

    The prompt's places are held by a token that no row uses; a hook on the embedding layer puts θ there. So the scorer
    batches as ever, and θ gets its gradient.

    Args:
        loaded: The model; it is frozen.
        length: n.
        rows: All rows that will be scored, to find a token that is free.

    Raises:
        ModelError: Every token occurs in the rows, or the model has no embedding layer that can be hooked.
    """

    def __init__(self, loaded: LoadedModel, length: int, rows: Sequence[EncodedExample]) -> None:
        self.loaded, self.length = loaded, length
        self.tokenizer = loaded.tokenizer
        loaded.model.requires_grad_(False)
        self.scorer = OptionScorer(loaded.model, loaded.tokenizer)
        self.embedding: Any = loaded.model.get_input_embeddings()
        self.table: Tensor = self.embedding.weight
        self.holder = self._free_token(rows)
        self.allowed = self._allowed()
        self.spread = float(self.table[self.allowed].float().std())

    @property
    def device(self) -> torch.device:
        """Where θ has to be."""
        return self.table.device

    def loss(self, prompt: Tensor, rows: Sequence[EncodedExample], objective: Objective) -> Tensor:
        """Mean loss with θ in front, differentiable in θ."""
        with self._in_place(prompt):
            return self.scorer.loss([self._with_places(row) for row in rows], objective)

    def predict(
        self, prompt: Tensor, rows: Sequence[EncodedExample], objective: Objective
    ) -> tuple[list[Prediction], Score]:
        """Predictions and score with θ in front."""
        with torch.no_grad(), self._in_place(prompt):
            return self.scorer.predict([self._with_places(row) for row in rows], objective)

    def project(self, prompt: Tensor) -> tuple[int, ...]:
        """Nearest token of each row of θ; special tokens and tokens without visible text are left out."""
        return tuple(nearest(prompt.detach(), self.table.detach(), self.allowed).tolist())

    def text(self, ids: Sequence[int]) -> str:
        """Ids as text."""
        decoded: str = self.tokenizer.decode(list(ids), skip_special_tokens=True)
        return decoded.strip()

    def ids_of(self, text: str) -> tuple[int, ...]:
        """The text's tokens, repeated or cut to n; empty when it has none. PEFT starts from texts in the same way."""
        found = self.tokenizer(text, add_special_tokens=False, return_attention_mask=False)["input_ids"]
        if not found:
            return ()
        return tuple((found * (self.length // len(found) + 1))[: self.length])

    def embed(self, ids: Sequence[int]) -> Tensor:
        """θ whose rows are the embeddings of n tokens, fp32."""
        return self.table.detach()[torch.tensor(list(ids), device=self.device)].float().clone()

    def _with_places(self, row: EncodedExample) -> EncodedExample:
        return replace(row, prompt_ids=(self.holder,) * self.length + row.prompt_ids)

    @contextmanager
    def _in_place(self, prompt: Tensor) -> Iterator[None]:
        def put(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
            places = inputs[0] == self.holder
            rows = int(places.sum()) // self.length
            filled = output.clone()
            filled[places] = prompt.to(output.dtype).repeat(rows, 1)
            return filled

        handle = self.embedding.register_forward_hook(put)
        try:
            yield
        finally:
            handle.remove()

    def _free_token(self, rows: Sequence[EncodedExample]) -> int:
        used = {token for row in rows for part in (row.prompt_ids, *row.option_ids) for token in part}
        # The padding token fills up short rows, so it is not free either.
        taken = {self.tokenizer.pad_token_id, self.tokenizer.eos_token_id, 0}
        for token in range(self.table.shape[0] - 1, -1, -1):
            if token not in used and token not in taken:
                return token
        raise ModelError.of("no-free-token", "the rows", "they use every token of the vocabulary", "Use fewer rows.")

    def _allowed(self) -> Tensor:
        special = set(self.tokenizer.all_special_ids)
        count = min(len(self.tokenizer), self.table.shape[0])
        texts = self.tokenizer.batch_decode([[token] for token in range(count)])
        kept = [
            token
            for token, text in enumerate(texts)
            if token not in special and text.strip() and text.isprintable() and "\ufffd" not in text
        ]
        if not kept:
            raise ModelError.of(
                "no-text-tokens", "the tokenizer", "none of its tokens is visible text", "Use another model."
            )
        return torch.tensor(kept, device=self.device)
