"""Two-point training steps fused on the GPU; imported only where Triton can be."""

from optaware.train.gpu._reading import NotSupported
from optaware.train.gpu.learner import FusedLearner

__all__ = ["FusedLearner", "NotSupported"]
