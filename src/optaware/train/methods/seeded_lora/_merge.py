"""From experts to one adapter, by the method that the config names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from optaware.records import Score, SeededLoRA
from optaware.train._batches import BatchOrder
from optaware.train._seeds import derive_seed
from optaware.train.merging import (
    Adapter,
    Found,
    Validation,
    check_compatible,
    dare,
    gated,
    greedy_soup,
    identity_error,
    learned,
    scaled,
    ties,
    validation_softmax,
    weighted,
    zeroed,
)
from optaware.train.methods.seeded_lora._bench import Bench

__all__ = ["Merged", "merge_experts", "validation_score"]


@dataclass(frozen=True)
class Merged:
    """A merged adapter and how it came about.

    Attributes:
        adapter: On the model's device.
        weights: One per expert; None where the merge is no weighted sum.
        trace: What a search on validation rows tried.
    """

    adapter: Adapter
    weights: tuple[float, ...] | None
    trace: tuple[dict[str, float | None], ...] = ()

    def error(self, experts: Sequence[Adapter], stored: Adapter) -> float:
        """How far an adapter read back from disk is from what was asked for (see `identity_error`)."""
        if self.weights is None:
            return identity_error(stored, [self.adapter], [1.0])
        return identity_error(stored, experts, self.weights)


def merge_experts(bench: Bench, method: SeededLoRA, experts: Sequence[Adapter], batch_size: int, seed: int) -> Merged:
    """Merge experts on ΔW.

    Raises:
        InputError: The experts do not fit together, or the method needs validation rows and there are none.
    """
    experts = check_compatible([expert.to(bench.loaded.device) for expert in experts])
    if method.merge == "ties":
        return Merged(ties(experts, density=0.2 if method.density is None else method.density), None)
    if method.merge == "dare":
        density = 0.5 if method.density is None else method.density
        return Merged(dare(experts, density=density, seed=derive_seed(seed, "dare")), None)
    found = _search(bench, method, experts, batch_size, seed)
    return Merged(weighted(experts, found.weights), found.weights, found.trace)


def _search(bench: Bench, method: SeededLoRA, experts: Sequence[Adapter], batch_size: int, seed: int) -> Found:
    if method.merge == "uniform":
        return Found((1 / len(experts),) * len(experts), ())
    rows = [row for task in bench.rows.data.tasks for row in bench.rows.of(task, "dev")]
    order = BatchOrder(max(1, len(rows)), batch_size, derive_seed(seed, "weights"))

    def gradient(weights: Tensor, step: int) -> tuple[float, Tensor]:
        weights = weights.to(bench.loaded.device).requires_grad_()
        with zeroed(bench.model), gated(bench.model, experts, weights):
            loss = bench.loss([rows[index] for index in order.batch(step)])
            (slope,) = torch.autograd.grad(loss, weights)
        return float(loss.detach()), slope.cpu()

    validation = Validation(score=partial(validation_score, bench), gradient=gradient, rows=len(rows))
    match method.merge:
        case "scaled":
            return scaled(experts, validation, method.scales)
        case "validation":
            return validation_softmax(experts, validation, method.temperature)
        case "greedy-soup":
            return greedy_soup(experts, validation)
        case _:
            return learned(experts, validation, steps=method.weight_steps, lr=method.weight_lr)


def validation_score(bench: Bench, adapter: Adapter) -> Score:
    """Mean over the mixture's tasks of accuracy and loss on their dev rows; every task weighs the same."""
    scores = [bench.predict(task, "dev", adapter)[1] for task in bench.rows.data.tasks]
    losses = [score.loss for score in scores if score.loss is not None]
    return Score(
        accuracy=sum(score.accuracy for score in scores) / len(scores),
        loss=sum(losses) / len(losses) if len(losses) == len(scores) else None,
        n=sum(score.n for score in scores),
    )
