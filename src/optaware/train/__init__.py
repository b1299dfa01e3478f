"""Training: direction × estimator × update for forward-only methods, first-order baselines, one loop for all.

Names are imported when they are first used, so that importing the package does not bring torch with it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from optaware.train._types import EvalEvent, Probe, StepEvent, TrainEvent, TrainOutcome

if TYPE_CHECKING:
    from optaware.train._checkpoint import discard_checkpoints
    from optaware.train._journal import JournalHeader, read_journal
    from optaware.train._loop import DIVERGED_AFTER, train
    from optaware.train._replay import JournalProbe, ReplayOutcome, journal_probes, replay
    from optaware.train._weights import save_weights
    from optaware.train.directions import LowRank
    from optaware.train.distributed import Ranks
    from optaware.train.estimators import Estimator, OnePoint, OnePointResidual, OneSided, TwoPoint
    from optaware.train.objectives import MetricObjective, RewardObjective, TaskObjective
    from optaware.train.optim import BatchClosure, ZerothOrder, ZerothOrderMixin
    from optaware.train.parameters import choose_parameters
    from optaware.train.plain import PlainMeZO
    from optaware.train.updates import SGD, Adam, Momentum, Sign, Update
    from optaware.train.zeroth import ZerothOrderLearner

__all__ = [
    "DIVERGED_AFTER",
    "SGD",
    "Adam",
    "BatchClosure",
    "Estimator",
    "EvalEvent",
    "JournalHeader",
    "JournalProbe",
    "LowRank",
    "MetricObjective",
    "Momentum",
    "OnePoint",
    "OnePointResidual",
    "OneSided",
    "PlainMeZO",
    "Probe",
    "Ranks",
    "ReplayOutcome",
    "RewardObjective",
    "Sign",
    "StepEvent",
    "TaskObjective",
    "TrainEvent",
    "TrainOutcome",
    "TwoPoint",
    "Update",
    "ZerothOrder",
    "ZerothOrderLearner",
    "ZerothOrderMixin",
    "choose_parameters",
    "discard_checkpoints",
    "journal_probes",
    "read_journal",
    "replay",
    "save_weights",
    "train",
]

_HOMES = {
    "Adam": "updates",
    "BatchClosure": "optim",
    "DIVERGED_AFTER": "_loop",
    "Estimator": "estimators",
    "JournalHeader": "_journal",
    "JournalProbe": "_replay",
    "LowRank": "directions",
    "MetricObjective": "objectives",
    "Momentum": "updates",
    "OnePoint": "estimators",
    "OnePointResidual": "estimators",
    "OneSided": "estimators",
    "PlainMeZO": "plain",
    "Ranks": "distributed",
    "ReplayOutcome": "_replay",
    "RewardObjective": "objectives",
    "SGD": "updates",
    "Sign": "updates",
    "TaskObjective": "objectives",
    "TwoPoint": "estimators",
    "Update": "updates",
    "ZerothOrder": "optim",
    "ZerothOrderLearner": "zeroth",
    "ZerothOrderMixin": "optim",
    "choose_parameters": "parameters",
    "discard_checkpoints": "_checkpoint",
    "journal_probes": "_replay",
    "read_journal": "_journal",
    "replay": "_replay",
    "save_weights": "_weights",
    "train": "_loop",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"optaware.train.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
