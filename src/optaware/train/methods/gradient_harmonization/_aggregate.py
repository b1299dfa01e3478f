from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module

import torch
from torch import Tensor

from optaware.errors import InputError
from optaware.records import GradientHarmonization
from optaware.train._seeds import derive_seed
from optaware.train.methods.gradient_harmonization._gradvac import gradvac

__all__ = ["Aggregator", "agreement", "capturable", "harmonized", "make_aggregator", "mean"]

Aggregator = Callable[[Tensor], Tensor]
"""Gramian of the task gradients of one group [n, n], ⟨g_i, g_j⟩ → weights [n] of the aggregate Σ w_i g_i.

Every rule here depends on the gradients through their inner products alone, so n² numbers a group are all it needs.
"""

_TORCHJD = {
    "pcgrad": "PCGradWeighting",
    "mgda": "MGDAWeighting",
    "upgrad": "UPGradWeighting",
    "cagrad": "CAGradWeighting",
    "imtl-g": "IMTLGWeighting",
}


def mean(gramian: Tensor) -> Tensor:
    """Equal weights 1/n."""
    count = gramian.shape[0]
    return torch.full((count,), 1.0 / count, dtype=gramian.dtype, device=gramian.device)


def harmonized(gramian: Tensor, *, score: str, temperature: float) -> Tensor:
    """Softmax over tasks of the score of g_i with the mean gradient q.

    Args:
        gramian: ⟨g_i, g_j⟩ [n, n].
        score: `dot` ⟨g_i, q⟩; `cosine` ⟨g_i, q⟩ / (‖g_i‖ ‖q‖); `scaled` ⟨g_i, q⟩ / ‖q‖².
        temperature: τ; towards 0 the best-scored task takes all, towards ∞ the weights become equal.

    Returns:
        Weights [n] that sum to 1.
    """
    dots = gramian.mean(1)
    square = gramian.mean().clamp_min(torch.finfo(gramian.dtype).tiny)
    if score == "cosine":
        norms = gramian.diagonal().clamp_min(torch.finfo(gramian.dtype).tiny).sqrt()
        dots = dots / (norms * square.sqrt())
    elif score == "scaled":
        dots = dots / square
    return torch.softmax(dots / temperature, 0)


def agreement(gramian: Tensor) -> Tensor:
    """Weights by gradient agreement: ⟨g_i, Σ_j g_j⟩ over the sum of their absolute values (Eshratifar et al., 2018).

    Tasks that point against the others get a negative weight. Without any agreement (all sums zero) the weights are 0.
    """
    sums = gramian.sum(1)
    return sums / sums.abs().sum().clamp_min(torch.finfo(gramian.dtype).tiny)


def _torchjd(gramian: Tensor, *, weighting: Callable[[Tensor], Tensor], seed: int) -> Tensor:
    """A torchjd weighting, on the CPU in float64; rules that draw an order do so from `seed`. Sums become means."""
    square = gramian.detach().to("cpu", torch.float64)
    scale = square.diagonal().mean()
    if not torch.isfinite(scale) or scale <= 0:
        return mean(gramian)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        weights = weighting(square / scale)
    return weights.to(gramian)


_CAGRAD = 0.5
"""CAGrad's c, as in its paper: how far from the mean gradient it may go, as a share of the mean's length."""


def _of_sum(gramian: Tensor, *, inner: Aggregator) -> Tensor:
    return inner(gramian) / gramian.shape[0]


def _of_ball(gramian: Tensor, *, inner: Aggregator) -> Tensor:
    return inner(gramian) / (1 + _CAGRAD)


def capturable(method: GradientHarmonization) -> bool:
    """Whether the aggregator runs on the device alone, without a solver on the CPU or a draw."""
    return method.aggregator not in _TORCHJD and method.aggregator != "gradvac"


def make_aggregator(method: GradientHarmonization, seed: int = 0) -> Aggregator:
    """The aggregator that a config asks for.

    PCGrad (Yu et al., 2020), MGDA (Désidéri, 2012), UPGrad (Quinton and Rey, 2024), CAGrad (Liu et al., 2021) and
    IMTL-G (Liu et al., 2021) are those of torchjd. PCGrad sums over tasks and is divided by n; CAGrad (c = 0.5) is
    divided by 1 + c: equal gradients then give that gradient under every rule, and none is a hidden learning rate.

    Args:
        method: The config.
        seed: For rules that visit the tasks in a random order.

    Raises:
        InputError: torchjd, or a solver that the rule needs, is not installed.
    """
    if method.aggregator == "harmonized" and method.attention == "softmax":
        return partial(harmonized, score=method.score, temperature=method.temperature)
    if method.aggregator in ("mean", "harmonized"):
        return mean
    if method.aggregator == "agreement":
        return agreement
    own = derive_seed(seed, "aggregator") >> 1
    if method.aggregator == "gradvac":
        return partial(gradvac, seed=own)
    name = _TORCHJD[method.aggregator]
    try:
        factory = getattr(import_module("torchjd.aggregation"), name)
        weighting = factory(c=_CAGRAD) if method.aggregator == "cagrad" else factory()
    except ImportError as error:
        raise InputError.of(
            "aggregator-missing",
            f"method.aggregator = {method.aggregator}",
            f"it needs a package that is not installed: {str(error).splitlines()[0]}",
            "Install optaware[meta], or choose another aggregator.",
        ) from error
    rule: Aggregator = partial(_torchjd, weighting=weighting, seed=own)
    if method.aggregator == "cagrad":
        return partial(_of_ball, inner=rule)
    return partial(_of_sum, inner=rule) if method.aggregator == "pcgrad" else rule
