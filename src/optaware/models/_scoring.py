"""Scores of answer options under a causal language model, and the losses and predictions made of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from optaware.errors import InputError
from optaware.models._encode import EncodedExample
from optaware.models._head import lay_out_for_head
from optaware.models._introspect import attention_window, evaluating, forward_arguments, tolerance, unwrap
from optaware.models._layout import Layout, Tree, lay_out, option_means, tree_mask
from optaware.models._memory import free_cached_memory, is_out_of_memory
from optaware.models._virtual import run_with_virtual_tokens, virtual_tokens
from optaware.records import Prediction, Score

__all__ = ["Objective", "OptionScorer"]

Objective = Literal["options", "language-model"]

_MOST_LOGITS = 1 << 27


class OptionScorer:
    """Scores answer options with as few token positions as the model allows.

    The score of option k is the mean log-probability of its tokens given the prompt, with log-softmax in fp32:
    `s_k = (1 / T_k) Σ_t log p(y_kt | x, y_k1 … y_k(t−1))`.

    `batching` says how options become rows. It is found out once, by scoring a few synthetic examples each way:

    - `"tree"`: one row per example. The prompt is run once and the options branch off it, hidden from each other by a
      4D attention mask and with positions as if each stood alone. With one-token options the row is the prompt alone.
    - `"rows"`: one left-padded row per option.
    - `"single"`: one row per option and forward pass, for models whose outputs depend on padding.

    All of them are differentiable, draw nothing at random and compute logits only where option tokens are predicted,
    if the model's `forward` takes `logits_to_keep`. The probe runs when the scorer is made, so make it before weights
    are perturbed or hooks are attached.

    Args:
        model: A Hugging Face causal language model, bare or wrapped (PEFT, DistributedDataParallel).
        tokenizer: Its tokenizer; only the ids of its special tokens are used.

    Differs from the paper: MeZO's code runs one row per option and takes the log-softmax at all positions. The numbers
    are the same up to rounding.
    """

    def __init__(self, model: nn.Module, tokenizer: Any) -> None:
        self.tokens_per_batch = 4096
        self.model = model
        self.tokenizer = tokenizer
        core = unwrap(model)
        self._arguments = forward_arguments(model)
        self._vocabulary: int = core.config.get_text_config().vocab_size
        self._attention: str = getattr(core.config, "_attn_implementation", None) or "eager"
        self._window = attention_window(model)
        special = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
        self._pad = next(token for token in special if token is not None)
        self.batching: Literal["tree", "rows", "single"] = "single"
        lay_out_for_head(core)
        with evaluating(model):
            self._probe(core)

    @property
    def device(self) -> torch.device:
        """Where the model's inputs go."""
        return next(self.model.parameters()).device

    def option_logprobs(self, batch: Sequence[EncodedExample]) -> Tensor:
        """Score of each option, `[B, K]`, fp32, differentiable; -inf where an example has fewer than K options."""
        if not batch:
            raise InputError.of("empty-batch", "a batch of no examples", "there is nothing to score", "Give examples.")
        return self._scores([(example.prompt_ids, example.option_ids) for example in batch])

    def loss(self, batch: Sequence[EncodedExample], objective: Objective) -> Tensor:
        """Mean loss over the batch, a fp32 scalar.

        `"options"`: cross-entropy over the option scores s, `−log softmax(s)[label]`.
        `"language-model"`: `−s[label]`, the negative log-likelihood per token of the correct option. Only the correct
        options are run.

        Both are means over examples, so a batch equals the mean of its equal parts.

        Differs from the paper: MeZO's language-model loss (COPA) is the mean over all correct-option tokens of the
        batch, which weighs an example by its option's length; here every example weighs the same. The two agree when
        the correct options of the batch have one length.
        """
        if objective == "language-model":
            correct = [
                EncodedExample(example.id, example.prompt_ids, (example.option_ids[example.label],), 0)
                for example in batch
            ]
            return -self.option_logprobs(correct).mean()
        scores = self.option_logprobs(batch)
        labels = torch.tensor([example.label for example in batch], device=scores.device)
        return nn.functional.cross_entropy(scores, labels)

    def copies(self, batch: Sequence[EncodedExample], count: int, objective: Objective) -> Tensor:
        """`loss` of each of `count` copies of the batch, (count,), fp32, from one forward pass.

        For models that compute the copies in different ways (perturbed side by side). Copy p is the p-th of `count`
        equal blocks of rows that follow each other. Not for `batching` "single".
        """
        trees: list[Tree] = [(example.prompt_ids, example.option_ids) for example in batch]
        labels = torch.tensor([example.label for example in batch], device=self.device)
        if objective == "language-model":
            trees = [(example.prompt_ids, (example.option_ids[example.label],)) for example in batch]
            return -self._scores(trees * count).view(count, len(batch)).mean(1)
        scores = self._scores(trees * count)
        return nn.functional.cross_entropy(scores, labels.repeat(count), reduction="none").view(count, -1).mean(1)

    def takes_layouts(self, batch: Sequence[EncodedExample]) -> bool:
        """Whether `layout_loss` gives the loss of a batch: its examples can be rows whose options branch."""
        if self.batching != "tree" or virtual_tokens(self.model):
            return False
        widest = max(
            len(example.prompt_ids) + sum(len(option) - 1 for option in example.option_ids) for example in batch
        )
        return self._window is None or widest <= self._window

    def layout_loss(self, layout: Layout, labels: Tensor | None) -> Tensor:
        """`loss` of a batch that lies in tensors already; it asks for no number on the host, so it can be captured.

        Args:
            layout: One row per example, `branches` true.
            labels: Correct option of each row, `[R]`, for `"options"`; None: the rows have the correct option alone,
                for `"language-model"`.
        """
        scores = option_means(self._logits(self.model, layout), layout)
        return -scores.mean() if labels is None else nn.functional.cross_entropy(scores, labels)

    def score(self, examples: Sequence[EncodedExample], *, tokens_per_batch: int | None = None) -> list[list[float]]:
        """Option scores of each example, in the order given, without gradients and in evaluation mode.

        Examples of like length are batched up to `tokens_per_batch` positions, padding included; the result depends
        on that by rounding only. None: the scorer's own `tokens_per_batch`, 4096 unless it was set.
        """
        results: list[list[float]] = [[] for _ in examples]
        with evaluating(self.model):
            for indices in self._buckets(examples, tokens_per_batch or self.tokens_per_batch):
                scores = self._with_room([examples[index] for index in indices])
                for index, row in zip(indices, scores, strict=True):
                    results[index] = row[: len(examples[index].option_ids)]
        return results

    def _with_room(self, batch: Sequence[EncodedExample]) -> list[list[float]]:
        """Scores of a batch; where memory does not suffice, of its halves, and of smaller batches from then on."""
        try:
            return self.option_logprobs(batch).tolist()
        except RuntimeError as error:
            if len(batch) == 1 or not is_out_of_memory(error):
                raise
        self.tokens_per_batch = max(1, self.tokens_per_batch // 2)
        free_cached_memory()
        half = len(batch) // 2
        return [*self._with_room(batch[:half]), *self._with_room(batch[half:])]

    def predict(self, examples: Sequence[EncodedExample], objective: Objective) -> tuple[list[Prediction], Score]:
        """Score all examples; the prediction is the option of the highest score, the first of equals.

        A score that is not a number never wins. `Score.loss` is the mean loss of `objective`, None if not finite.
        """
        predictions = [
            Prediction(
                example_id=example.id,
                label=example.label,
                predicted=max(range(len(row)), key=lambda k: -math.inf if math.isnan(row[k]) else row[k]),
                scores=tuple(row),
            )
            for example, row in zip(examples, self.score(examples), strict=True)
        ]
        if not predictions:
            return [], Score(accuracy=0.0, loss=None, n=0)
        loss = math.fsum(_loss(prediction, objective) for prediction in predictions) / len(predictions)
        accuracy = sum(prediction.correct for prediction in predictions) / len(predictions)
        return predictions, Score(accuracy=accuracy, loss=loss if math.isfinite(loss) else None, n=len(predictions))

    def _scores(self, trees: Sequence[Tree]) -> Tensor:
        if self._as_trees(trees):
            return self._run(self.model, trees, self.batching == "single")
        rows: list[Tree] = [(prompt, (option,)) for prompt, options in trees for option in options]
        flat = self._run(self.model, rows, self.batching == "single").squeeze(1)
        parts = torch.split(flat, [len(options) for _, options in trees])
        return nn.utils.rnn.pad_sequence(list(parts), batch_first=True, padding_value=-torch.inf)

    def _as_trees(self, trees: Sequence[Tree]) -> bool:
        """Whether one row per example will do: nothing branches, or the model takes trees of this size."""
        if all(len(options) == 1 or max(map(len, options)) == 1 for _, options in trees):
            return True
        widest = max(len(prompt) + sum(len(option) - 1 for option in options) for prompt, options in trees)
        if virtual_tokens(self.model):  # their masks have two dimensions
            return False
        return self.batching == "tree" and (self._window is None or widest <= self._window)

    def _run(self, model: nn.Module, trees: Sequence[Tree], singly: bool) -> Tensor:
        if singly and len(trees) > 1:
            parts = [self._run(model, [tree], False).squeeze(0) for tree in trees]
            return nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=-torch.inf)
        layout = lay_out(trees, self._pad, self.device)
        return option_means(self._logits(model, layout), layout)

    def _logits(self, model: nn.Module, layout: Layout) -> Tensor:
        """Logits at the kept positions, `[R, keep, V]`."""
        inputs: dict[str, Any] = {"input_ids": layout.ids, "attention_mask": self._attention_mask(layout)}
        if "position_ids" in self._arguments:
            inputs["position_ids"] = layout.positions
        if "use_cache" in self._arguments:
            inputs["use_cache"] = False
        if "logits_to_keep" in self._arguments:
            inputs["logits_to_keep"] = layout.keep
        out = run_with_virtual_tokens(model, inputs) if virtual_tokens(model) else model(**inputs)
        logits: Tensor = out.logits
        return logits[:, -layout.keep :]

    def _attention_mask(self, layout: Layout) -> Tensor:
        if not layout.branches and not self._pads_by_tree(layout):
            return layout.mask.long()
        visible = tree_mask(layout)
        if self._attention == "sdpa":
            return visible
        dtype = next(self.model.parameters()).dtype
        hidden = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
        return hidden.masked_fill(~visible, torch.finfo(dtype).min)

    def _pads_by_tree(self, layout: Layout) -> bool:
        """Whether to hide padding by `tree_mask`, in which it sees itself.

        From a mask of two dimensions transformers makes one in which padding sees nothing. On GPUs cuDNN's attention
        then gave gradients that are no numbers at some lengths (192; torch 2.11, H100).
        """
        fits = self._window is None or layout.ids.shape[1] <= self._window
        return layout.padded and fits and self.batching == "tree" and not virtual_tokens(self.model)

    def _buckets(self, examples: Sequence[EncodedExample], budget: int) -> Iterator[list[int]]:
        """Indices in batches of like length; examples of one-token options are kept apart, they need one logit."""
        shapes = {index: self._shape(example) for index, example in enumerate(examples)}
        batch: list[int] = []
        rows = width = keep = 0
        for index in sorted(shapes, key=lambda index: (shapes[index][2] > 1, *shapes[index][1:])):
            own_rows, own_width, own_keep = shapes[index]
            rows, width = rows + own_rows, max(width, own_width)
            mixed = (keep > 1) != (own_keep > 1)
            keep = max(keep, own_keep)
            if batch and (mixed or rows * width > budget or rows * keep * self._vocabulary > _MOST_LOGITS):
                yield batch
                batch, rows, width, keep = [], own_rows, own_width, own_keep
            batch.append(index)
        if batch:
            yield batch

    def _shape(self, example: EncodedExample) -> tuple[int, int, int]:
        """Rows, positions in a row and kept positions that an example takes."""
        prompt, options = example.prompt_ids, example.option_ids
        tails = [len(option) - 1 for option in options]
        if self._as_trees([(prompt, options)]):
            return 1, len(prompt) + sum(tails), 1 + sum(tails)
        return len(options), len(prompt) + max(tails), 1 + max(tails)

    def _probe(self, core: nn.Module) -> None:
        """Find the cheapest batching whose scores equal those of rows run one by one."""
        trees = _probe_trees(self._vocabulary)
        rows: list[Tree] = [(prompt, (option,)) for prompt, options in trees for option in options]
        reference = self._run(core, rows, True).squeeze(1)
        allowed = tolerance(core)
        padded = self._run(core, rows, False).squeeze(1)
        if not _close(padded, reference, allowed):
            return
        self.batching = "rows"
        if self._attention not in ("sdpa", "eager"):
            return
        try:
            scores = self._run(core, trees, False)
            changed = self._run(core, [(prompt, (options[0][::-1], *options[1:])) for prompt, options in trees], False)
        except Exception:  # What a model raises on a 4D mask is its own affair; rows serve it.
            return
        present = scores > -torch.inf
        # Other options must not be felt at all. With equal shapes rounding is equal too, so this check is sharp in
        # any precision, while the agreement with single rows can only be as sharp as the dtype.
        unfelt = _close(changed[:, 1:][present[:, 1:]], scores[:, 1:][present[:, 1:]], allowed / 20)
        if unfelt and _close(scores[present], reference, allowed):
            self.batching = "tree"


def _probe_trees(vocabulary: int) -> list[Tree]:
    def ids(start: int, count: int) -> tuple[int, ...]:
        return tuple((start + 7 * step) % vocabulary for step in range(count))

    first: Tree = (ids(11, 6), (ids(23, 3), ids(41, 2), ids(59, 4)))
    second: Tree = (ids(17, 3), (ids(31, 4), ids(47, 1)))
    return [first, second]


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    return bool(torch.isfinite(b).all()) and bool(((a - b).abs() <= tolerance).all())


def _loss(prediction: Prediction, objective: Objective) -> float:
    """Loss of one scored example; NaN when it has no finite value."""
    scores, label = prediction.scores, prediction.label
    if objective == "language-model":
        return -scores[label]
    highest = max(scores)
    if not all(map(math.isfinite, scores)):
        return math.nan
    return highest + math.log(math.fsum(math.exp(score - highest) for score in scores)) - scores[label]
