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
    from optaware.train.directions import LowRank
    from optaware.train.distributed import Ranks
    from optaware.train.estimators import TwoPoint
    from optaware.train.optim import ZerothOrder, ZerothOrderMixin
    from optaware.train.plain import PlainMeZO
    from optaware.train.updates import SGD
    from optaware.train.zeroth import ZerothOrderLearner

__all__ = [
    "DIVERGED_AFTER",
    "SGD",
    "EvalEvent",
    "JournalHeader",
    "LowRank",
    "PlainMeZO",
    "Probe",
    "Ranks",
    "StepEvent",
    "TrainEvent",
    "TrainOutcome",
    "TwoPoint",
    "ZerothOrder",
    "ZerothOrderLearner",
    "ZerothOrderMixin",
    "discard_checkpoints",
    "read_journal",
    "train",
]

_HOMES = {
    "DIVERGED_AFTER": "_loop",
    "JournalHeader": "_journal",
    "LowRank": "directions",
    "PlainMeZO": "plain",
    "SGD": "updates",
    "TwoPoint": "estimators",
    "Ranks": "distributed",
    "ZerothOrder": "optim",
    "ZerothOrderLearner": "zeroth",
    "ZerothOrderMixin": "optim",
    "discard_checkpoints": "_checkpoint",
    "read_journal": "_journal",
    "train": "_loop",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"optaware.train.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
