"""Which learner a method config stands for."""

from __future__ import annotations

from typing import Any

from optaware.errors import InputError, Problem
from optaware.records import FOFull, FOLoRA, Method, ZerothOrderConfig
from optaware.train._types import Learner, Loss
from optaware.train.directions import LowRank
from optaware.train.estimators import TwoPoint
from optaware.train.firstorder import add_adapter, full, lora
from optaware.train.plain import PlainMeZO
from optaware.train.updates import SGD
from optaware.train.zeroth import ZerothOrderLearner

__all__ = ["make_learner", "prepare_model"]


def prepare_model(model: Any, method: Method, seed: int) -> Any:
    """The model to train: for LoRA a PEFT model around `model`, which gets the adapter layers in place."""
    return add_adapter(model, method, seed) if isinstance(method, FOLoRA) else model


def make_learner(model: Any, loss: Loss, method: Method, seed: int) -> Learner:
    """The learner of `method` on a model that `prepare_model` returned.

    Raises:
        InputError: The method does not train.
        ModelError: The method cannot be applied to this model.
    """
    match method:
        case ZerothOrderConfig(direction="gaussian"):
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
            direction = LowRank(model, rank=method.rank, refresh_every=method.refresh_every, seed=seed)
            update = SGD(method.lr, method.weight_decay)
            estimator = TwoPoint(method.eps)
            return ZerothOrderLearner(model, loss, direction, estimator, update, queries=method.queries, seed=seed)
        case FOFull():
            return full(model, loss, method, seed)
        case FOLoRA():
            return lora(model, loss, method, seed)
        case _:
            raise InputError(
                Problem("method-untrained", method.name, "it trains nothing", "Evaluate the model as it comes.")
            )
