"""Which learner a method config stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optaware.errors import InputError, Problem
from optaware.records import FOFull, FOLoRA, Method, ZerothOrderConfig
from optaware.train._types import Learner, Loss
from optaware.train.directions import make_direction
from optaware.train.estimators import Estimator, OnePoint, OnePointResidual, OneSided, TwoPoint
from optaware.train.firstorder import add_adapter, full, lora
from optaware.train.objectives import MetricObjective, TaskObjective
from optaware.train.parameters import choose_parameters
from optaware.train.plain import PlainMeZO
from optaware.train.schedules import settings_at
from optaware.train.updates import SGD, Adam, Momentum, Sign, Update
from optaware.train.zeroth import ZerothOrderLearner

if TYPE_CHECKING:
    from optaware.models import Objective

__all__ = ["MOST_COPIES", "make_estimator", "make_learner", "make_loss", "make_update", "prepare_model"]

MOST_COPIES = {"off": 1, "pairs": 2, "on": 32, "auto": 32}
"""Copies of a batch in one forward pass by `batching`; `auto` on a CPU: a pair."""


def prepare_model(model: Any, method: Method, seed: int) -> Any:
    """The model to train: `model`, or a PEFT model around it where the method trains an adapter, prefix or prompt.

    Raises:
        InputError: `include` matches no parameter.
        ModelError: There is nothing to train.
    """
    if isinstance(method, FOLoRA):
        return add_adapter(model, method, seed)
    return choose_parameters(model, method, seed) if isinstance(method, ZerothOrderConfig) else model


def make_loss(scorer: Any, objective: Objective, method: Method) -> Loss:
    """The loss that a method trains on: the task's own, or the one that its config names."""
    chosen = method.objective if isinstance(method, ZerothOrderConfig) else "task"
    if chosen == "accuracy" or chosen == "f1":
        return MetricObjective(scorer, chosen)
    return TaskObjective(scorer, objective if chosen == "task" else chosen)


def make_estimator(method: ZerothOrderConfig) -> Estimator:
    """The estimator that a config names."""
    match method.estimator:
        case "two-point":
            return TwoPoint(method.eps, normalise=method.normalise)
        case "one-sided":
            return OneSided(method.eps, normalise=method.normalise)
        case "one-point":
            return OnePoint(method.eps)
        case "one-point-residual":
            return OnePointResidual(method.eps)


def make_update(method: ZerothOrderConfig) -> Update:
    """The update that a config names."""
    common = method.lr, method.weight_decay, method.clip
    match method.update:
        case "sgd":
            return SGD(*common)
        case "sign":
            return Sign(*common)
        case "momentum":
            return Momentum(*common, beta=method.momentum, form=method.moments, window=method.window)
        case "adam":
            betas = method.momentum, method.beta2
            return Adam(*common, betas=betas, eps=method.adam_eps, form=method.moments, window=method.window)


def _copies(method: ZerothOrderConfig, model: Any) -> int:
    """Copies of a batch in one forward pass; on a CPU the two signs of a direction, which then share a draw."""
    on_gpu = any(parameter.is_cuda for parameter in model.parameters())
    return MOST_COPIES["pairs" if method.batching == "auto" and not on_gpu else method.batching]


def make_learner(model: Any, loss: Loss, method: Method, seed: int, steps: int = 1) -> Learner:
    """The learner of `method` on a model that `prepare_model` returned.

    Args:
        model: The model.
        loss: The objective, with its mean over examples.
        method: The method's config.
        seed: The run's seed.
        steps: Updates that the run asks for, which schedules go by.

    Raises:
        InputError: The method does not train.
        ModelError: The method cannot be applied to this model.
    """
    match method:
        case ZerothOrderConfig() if is_paper_loop(method):
            return PlainMeZO(
                model,
                loss,
                lr=method.lr,
                eps=method.eps,
                queries=method.queries,
                weight_decay=method.weight_decay,
                seed=seed,
            )
        case ZerothOrderConfig():
            return ZerothOrderLearner(
                model,
                loss,
                make_direction(model, method, seed),
                make_estimator(method),
                make_update(method),
                queries=method.queries,
                seed=seed,
                settings=lambda step: settings_at(method, step, steps),
                most_copies=_copies(method, model),
            )
        case FOFull():
            return full(model, loss, method, seed)
        case FOLoRA():
            return lora(model, loss, method, seed)
        case _:
            raise InputError(
                Problem("method-untrained", method.name, "it trains nothing", "Evaluate the model as it comes.")
            )


def is_paper_loop(method: ZerothOrderConfig) -> bool:
    """Whether a config is the loop of the paper itself: perturbations and updates are rounded into the weights."""
    wanted: dict[str, Any] = {
        "apply": "in-place",
        "direction": "gaussian",
        "estimator": "two-point",
        "update": "sgd",
        "mask": "none",
        "precision": "none",
    }
    wanted |= {"layers": None, "normalise": False, "clip": None, "lr_schedule": "constant", "warmup": 0}
    wanted |= {"eps_schedule": "constant", "query_schedule": "constant", "noise": "regenerate"}
    return all(getattr(method, name) == value for name, value in wanted.items())
