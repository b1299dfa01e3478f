"""What the coefficients of a probe do to the weights."""

from optaware.train.updates.sgd import SGD

__all__ = ["SGD"]
