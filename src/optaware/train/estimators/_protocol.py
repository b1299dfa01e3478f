from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from torch import Tensor

from optaware.train._types import Probe
from optaware.train.directions import Direction

__all__ = ["Estimator"]


class Estimator(Protocol):
    """Which losses are evaluated around the weights, and which coefficients g_j follow: `ĝ = mean_j g_j·z_j`.

    No gradient is ever stored: a probe is seeds and scalars, and an update makes each z_j again.
    """

    eps: float
    """Perturbation scale, where a step is not given one of its own."""

    def forwards(self, queries: int) -> int:
        """Forward passes of a whole batch that a step of so many directions takes."""
        ...

    def estimate(
        self, direction: Direction, loss: Callable[[], float], seeds: Sequence[int], eps: float | None = None
    ) -> Probe:
        """Evaluate the losses of one step.

        Args:
            direction: How z is applied.
            loss: Loss of the model as it now computes, over the step's whole batch.
            seeds: One per direction z_j.
            eps: Perturbation scale of this step.
        """
        ...

    def kept(self, probe: Probe) -> tuple[float, ...]:
        """The float32 values, one per direction, that the journal keeps of a probe."""
        ...

    def recall(self, seeds: Sequence[int], kept: Sequence[float], eps: float | None = None) -> Probe:
        """The probe that `kept` was written of (without its losses); what is remembered moves on as it did then."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What is remembered from step to step, by name."""
        ...

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up what `state()` gave."""
        ...
