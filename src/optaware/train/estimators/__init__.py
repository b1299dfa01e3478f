"""Which losses are evaluated around the weights, and which coefficients follow."""

from optaware.train.estimators.twopoint import TwoPoint

__all__ = ["TwoPoint"]
