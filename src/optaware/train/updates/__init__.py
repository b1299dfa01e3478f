"""What the coefficients of a probe do to the weights."""

from optaware.train.updates._protocol import Update
from optaware.train.updates.adam import Adam
from optaware.train.updates.momentum import Momentum
from optaware.train.updates.sgd import SGD, Sign

__all__ = ["SGD", "Adam", "Momentum", "Sign", "Update"]
