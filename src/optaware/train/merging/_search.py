"""Merging weights chosen on validation rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from optaware.errors import DivergedError, InputError
from optaware.records import Score
from optaware.train.merging._adapter import Adapter
from optaware.train.merging._linear import weighted

__all__ = ["Found", "Validation", "greedy_soup", "learned", "scaled", "validation_softmax"]


@dataclass(frozen=True)
class Validation:
    """What the searches may ask about rows that are neither trained nor reported on.

    Attributes:
        score: Mean accuracy and loss over tasks of an adapter on the validation mix.
        gradient: Loss of a batch of the mix (by its number) with weights `[N]` of the experts, and its gradient `[N]`.
        rows: How many rows the mix has.
    """

    score: Callable[[Adapter], Score]
    gradient: Callable[[Tensor, int], tuple[float, Tensor]]
    rows: int


@dataclass(frozen=True)
class Found:
    """Weights that a search chose, and what it saw.

    Attributes:
        weights: One per expert.
        trace: What was tried, with its validation loss and accuracy.
    """

    weights: tuple[float, ...]
    trace: tuple[dict[str, float | None], ...]


def scaled(adapters: Sequence[Adapter], validation: Validation, scales: Sequence[float]) -> Found:
    """Uniform average times λ; of the `scales`, the λ of lowest validation loss (the first of equals).

    Raises:
        DivergedError: None of them has a finite loss.
    """
    _check(validation)
    trace = []
    for scale in scales:
        score = validation.score(weighted(adapters, [scale / len(adapters)] * len(adapters)))
        trace.append({"scale": float(scale), "loss": score.loss, "accuracy": score.accuracy})
    _some_finite([-math.inf if row["loss"] is None else row["loss"] for row in trace])
    best = min(trace, key=lambda row: math.inf if row["loss"] is None else row["loss"])
    weight = (best["scale"] or 0.0) / len(adapters)
    return Found((weight,) * len(adapters), tuple(trace))


def validation_softmax(adapters: Sequence[Adapter], validation: Validation, temperature: float) -> Found:
    """`w = softmax(acc_i / τ)`, acc_i the accuracy of expert i alone on the whole validation mix (0 to 1).

    An expert without a finite loss gets no weight.

    Raises:
        DivergedError: No expert has a finite loss.
    """
    _check(validation)
    scores = [validation.score(adapter) for adapter in adapters]
    # The accuracy of scores that are no numbers is none: such an expert gets no weight.
    accuracies = [score.accuracy if score.loss is not None else -math.inf for score in scores]
    _some_finite(accuracies)
    weights = torch.softmax(torch.tensor(accuracies).double() / temperature, 0)
    trace = tuple({"expert": float(i), "loss": s.loss, "accuracy": s.accuracy} for i, s in enumerate(scores))
    return Found(tuple(weights.tolist()), trace)


def greedy_soup(adapters: Sequence[Adapter], validation: Validation) -> Found:
    """Greedy soup (Wortsman et al., ICML 2022) over ΔW.

    Experts are tried from the best on the validation mix to the worst; one is kept when the uniform average with it is
    at least as accurate as without it, and its loss is finite.

    Raises:
        DivergedError: No expert has a finite loss.
    """
    _check(validation)
    scores = [validation.score(adapter) for adapter in adapters]
    _some_finite([-math.inf if score.loss is None else score.accuracy for score in scores])
    order = sorted(range(len(adapters)), key=lambda index: (scores[index].loss is None, -scores[index].accuracy))
    chosen = [order[0]]
    best = scores[order[0]].accuracy
    trace: list[dict[str, float | None]] = [
        {"expert": float(order[0]), "kept": 1.0, "loss": scores[order[0]].loss, "accuracy": best}
    ]
    for index in order[1:]:
        score = validation.score(weighted([adapters[each] for each in (*chosen, index)]))
        keep = score.loss is not None and score.accuracy >= best
        trace.append({"expert": float(index), "kept": float(keep), "loss": score.loss, "accuracy": score.accuracy})
        if keep:
            chosen, best = [*chosen, index], score.accuracy
    weights = tuple(1 / len(chosen) if index in chosen else 0.0 for index in range(len(adapters)))
    return Found(weights, tuple(trace))


def learned(adapters: Sequence[Adapter], validation: Validation, *, steps: int, lr: float) -> Found:
    """`w = softmax(α)`, α by Adam on the loss of batches of the validation mix, from α = 0 (the uniform average).

    The weights kept are those of the lower loss on the whole mix, the uniform ones or those after the last step.

    Args:
        adapters: The experts.
        validation: The validation rows.
        steps: Updates of α.
        lr: Learning rate of Adam.

    Raises:
        DivergedError: Neither has a finite loss.
    """
    _check(validation)
    logits = torch.zeros(len(adapters), requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=lr)
    trace: list[dict[str, float | None]] = []
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        weights = torch.softmax(logits, 0)
        loss, gradient = validation.gradient(weights.detach(), step)
        if not math.isfinite(loss) or not bool(torch.isfinite(gradient).all()):
            trace.append({"step": float(step), "loss": None})
            break
        weights.backward(gradient)  # type: ignore[no-untyped-call]
        optimizer.step()
        trace.append({"step": float(step), "loss": loss})
    uniform = (1 / len(adapters),) * len(adapters)
    final = tuple(torch.softmax(logits.detach().double(), 0).tolist())
    losses = [validation.score(weighted(adapters, weights)).loss for weights in (uniform, final)]
    _some_finite([-math.inf if loss is None else loss for loss in losses])
    before, after = (math.inf if loss is None else loss for loss in losses)
    trace.append({"uniform_loss": losses[0], "learned_loss": losses[1]})
    return Found(final if after < before else uniform, tuple(trace))


def _some_finite(values: Sequence[float]) -> None:
    if not any(map(math.isfinite, values)):
        raise DivergedError.of(
            "diverged",
            "merging weights",
            "no choice of them has a finite loss on the validation rows",
            "Train the experts with a lower learning rate, or in bf16 or fp32 where they were trained in fp16.",
        )


def _check(validation: Validation) -> None:
    if validation.rows < 1:
        raise InputError.of(
            "validation-empty",
            "an empty validation mix",
            "merging weights are chosen on it",
            "Give the mixture dev rows (data.dev of at least 1), or merge uniformly.",
        )
