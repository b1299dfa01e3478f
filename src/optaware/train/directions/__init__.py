"""How a perturbation z is drawn and applied, from a seed."""

from optaware.train.directions._protocol import Direction
from optaware.train.directions.gaussian import gaussian_noise
from optaware.train.directions.lowrank import LowRank
from optaware.train.directions.swapped import Swapped

__all__ = ["Direction", "LowRank", "Swapped", "gaussian_noise"]
