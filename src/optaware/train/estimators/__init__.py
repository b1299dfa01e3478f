"""Which losses are evaluated around the weights, and which coefficients follow."""

from optaware.train.estimators._points import losses_at, to_float32
from optaware.train.estimators._protocol import Estimator
from optaware.train.estimators.onepoint import OnePoint, OnePointResidual
from optaware.train.estimators.onesided import OneSided
from optaware.train.estimators.twopoint import TwoPoint

__all__ = ["Estimator", "OnePoint", "OnePointResidual", "OneSided", "TwoPoint", "losses_at", "to_float32"]
