"""What a forward-only run can minimise: the task's loss, a metric of its predictions, a reward of generated text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from optaware.errors import InputError
from optaware.stats import macro_f1

if TYPE_CHECKING:
    from optaware.models import EncodedExample, Objective

__all__ = ["MetricObjective", "RewardObjective", "TaskObjective"]


class TaskObjective:
    """The mean loss of `OptionScorer.loss`: cross-entropy over the answer options, or the language-model loss.

    Args:
        scorer: An `OptionScorer`, or anything with its `loss`.
        objective: `options` or `language-model`.
    """

    def __init__(self, scorer: Any, objective: Objective) -> None:
        self.scorer, self.objective = scorer, objective

    @property
    def can_copy(self) -> bool:
        """Whether copies of a batch can be told apart: all rows of a batch go through the model at once."""
        return hasattr(self.scorer, "copies") and self.scorer.batching != "single"

    def __call__(self, batch: Sequence[EncodedExample]) -> Tensor:
        """Mean loss, fp32, differentiable."""
        loss: Tensor = self.scorer.loss(batch, self.objective)
        return loss

    def copies(self, batch: Sequence[EncodedExample], count: int) -> Tensor:
        """Mean loss of each of `count` copies of the batch, (count,); copy p is rows p·B … (p+1)·B − 1."""
        losses: Tensor = self.scorer.copies(batch, count, self.objective)
        return losses


class MetricObjective:
    """`1 − metric` of the predictions over the whole batch; not differentiable.

    A metric is a step function of the weights. A probe that changes no prediction has coefficient 0, so batches should
    be large and `eps` not too small.

    Source: Malladi et al., NeurIPS 2023, section 3.3 (accuracy and F1 as objectives).

    Args:
        scorer: An `OptionScorer`, or anything with its `option_logprobs`.
        metric: `accuracy`, or `f1` (macro, over the whole batch, whatever its parts).
    """

    can_copy = False

    def __init__(self, scorer: Any, metric: Literal["accuracy", "f1"]) -> None:
        self.scorer, self.metric = scorer, metric

    def __call__(self, batch: Sequence[EncodedExample]) -> Tensor:
        """`1 − metric` of one part."""
        return torch.tensor(self.pooled([batch]))

    @torch.no_grad()
    def pooled(self, parts: Sequence[Sequence[EncodedExample]]) -> float:
        """`1 − metric` over all parts together; NaN where a score is not a number."""
        labels: list[int] = []
        predicted: list[int] = []
        for part in parts:
            scores = self.scorer.option_logprobs(part)
            if torch.isnan(scores).any():
                return float("nan")
            labels += [example.label for example in part]
            predicted += scores.argmax(dim=1).tolist()
        if self.metric == "f1":
            return 1.0 - macro_f1(labels, predicted)
        return 1.0 - sum(a == b for a, b in zip(labels, predicted, strict=True)) / len(labels)


class RewardObjective:
    """`−mean reward` of what the model writes after each prompt; the reward is any Python function.

    Texts are generated greedily, so that the same weights give the same loss.

    Args:
        reward: Called with the generated texts and the examples of the batch; returns one number a text, higher is
            better.
        model: The model that is trained (the PEFT model where an adapter is).
        tokenizer: Its tokenizer.
        max_new_tokens: Most tokens of a text.
        stop: Strings that end a text.
    """

    can_copy = False

    def __init__(
        self,
        reward: Callable[[list[str], Sequence[EncodedExample]], Sequence[float]],
        model: Any,
        tokenizer: Any,
        *,
        max_new_tokens: int = 32,
        stop: Sequence[str] = (),
    ) -> None:
        self.reward, self.model, self.tokenizer = reward, model, tokenizer
        self.max_new_tokens, self.stop = max_new_tokens, tuple(stop)

    @torch.no_grad()
    def __call__(self, batch: Sequence[EncodedExample]) -> Tensor:
        """`−mean reward` over the batch.

        Raises:
            InputError: The function gave another number of rewards than texts.
        """
        from optaware.models import generate

        prompts = [example.prompt_ids for example in batch]
        written = generate(self.model, self.tokenizer, prompts, max_new_tokens=self.max_new_tokens, stop=self.stop)
        rewards = list(self.reward([each.text for each in written], batch))
        if len(rewards) != len(batch):
            raise InputError.of(
                "reward-count",
                f"{len(rewards)} rewards for {len(batch)} texts",
                "each text needs one",
                "Let the reward function return one number per text, in their order.",
            )
        return -torch.tensor(rewards, dtype=torch.float64).mean().float()
