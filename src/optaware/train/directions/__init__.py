"""How a perturbation z is drawn and applied, from a seed."""

from optaware.train.directions._make import make_direction
from optaware.train.directions._protocol import Direction
from optaware.train.directions.dense import Dense
from optaware.train.directions.gaussian import gaussian_noise
from optaware.train.directions.inplace import InPlace
from optaware.train.directions.lowrank import LowRank

__all__ = ["Dense", "Direction", "InPlace", "LowRank", "gaussian_noise", "make_direction"]
