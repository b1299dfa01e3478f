"""Forward-only training as direction × estimator × update."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from optaware.train._seeds import derive_seed
from optaware.train._types import Loss, StepResult
from optaware.train.directions import Direction
from optaware.train.estimators import TwoPoint
from optaware.train.updates import SGD

if TYPE_CHECKING:
    from optaware.models import EncodedExample

__all__ = ["ZerothOrderLearner"]


class ZerothOrderLearner:
    """Each step: the estimator probes the loss along directions, the update moves the weights along them.

    Args:
        model: The model that `direction` acts on.
        loss: The objective, with its mean over examples.
        direction: How z is drawn and applied.
        estimator: Which losses are evaluated and which coefficients follow.
        update: What the coefficients do to the weights.
        queries: Directions per step.
        seed: The run's seed; the seed of each probe is a function of it, of the step and of the query.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        direction: Direction,
        estimator: TwoPoint,
        update: SGD,
        *,
        queries: int = 1,
        seed: int = 0,
    ) -> None:
        self.model, self.loss = model, loss
        self.direction, self.estimator, self.update = direction, estimator, update
        self.queries, self.seed = queries, seed
        self._prepared = False

    @torch.no_grad()
    def step(self, step: int, parts: Sequence[Sequence[EncodedExample]]) -> StepResult:
        """Probe and move; a step without a finite probe moves nothing."""
        size = sum(len(part) for part in parts)

        def loss() -> float:
            return sum(float(self.loss(part)) * len(part) / size for part in parts)

        if not self._prepared:
            self.direction.prepare(lambda: self.loss(parts[0]))
            self._prepared = True
        self.direction.begin(step)
        seeds = [derive_seed(self.seed, "probe", step, query) for query in range(self.queries)]
        probe = self.estimator.estimate(self.direction, loss, seeds)
        moved = self.update.apply(self.direction, probe)
        return StepResult(probe.loss, probe.n_forward, not moved, probe.coefficients)

    @torch.no_grad()
    def settle(self) -> None:
        """Bring all moves into the stored weights."""
        self.direction.settle()

    def weights(self) -> dict[str, Tensor]:
        """The stored weights that are trained."""
        return self.direction.weights()

    def state(self) -> dict[str, Tensor]:
        """What the direction remembers beside the weights."""
        return self.direction.state()

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor], state: dict[str, Tensor]) -> None:
        """Take up saved weights and state."""
        self.direction.load(weights, state)

    @contextmanager
    def training(self) -> Iterator[None]:
        """Steps are made in evaluation mode (no dropout): both sides of a probe see the same function."""
        self.model.eval()
        yield

    def close(self) -> None:
        """Take the direction off the model."""
        self.direction.close()
