"""Forward-only training as direction × estimator × update."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from optaware.errors import ModelError, Problem
from optaware.train._asked import asked
from optaware.train._losses import BatchLoss
from optaware.train._room import Room
from optaware.train._seeds import derive_seed
from optaware.train._types import Loss, StepResult
from optaware.train.directions import Direction
from optaware.train.estimators import Estimator
from optaware.train.schedules import Settings
from optaware.train.updates import Update

if TYPE_CHECKING:
    from optaware.models import EncodedExample

__all__ = ["ZerothOrderLearner", "probe_seeds"]


def probe_seeds(seed: int, step: int, queries: int) -> list[int]:
    """Seeds of the directions of one step: functions of the run's seed, the step and the query alone."""
    return [derive_seed(seed, "probe", step, query) for query in range(queries)]


class ZerothOrderLearner:
    """Each step: the estimator probes the loss along directions, the update moves the weights along them.

    The first step of a process evaluates the loss of its first part twice at the same weights, and refuses a loss that
    does not give the same value both times: the difference of two losses would be noise.

    Args:
        model: The model that `direction` acts on.
        loss: The objective, with its mean over examples.
        direction: How z is drawn and applied.
        estimator: Which losses are evaluated and which coefficients follow.
        update: What the coefficients do to the weights.
        queries: Directions per step.
        seed: The run's seed; the seed of each probe is a function of it, of the step and of the query.
        settings: Learning rate, perturbation scale and queries by step; None: those of `update`, `estimator` and
            `queries`, at every step.
        most_copies: Copies of the batch, each with a perturbation of its own, that may go through the model in one
            forward pass, where direction and loss can do that.

    Raises:
        ModelError: At the first step: the loss is not deterministic.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        direction: Direction,
        estimator: Estimator,
        update: Update,
        *,
        queries: int = 1,
        seed: int = 0,
        settings: Callable[[int], Settings] | None = None,
        most_copies: int = 1,
    ) -> None:
        self.model, self.loss = model, loss
        self.direction, self.estimator, self.update = direction, estimator, update
        self.queries, self.seed, self.most_copies = queries, seed, most_copies
        self._settings = settings or (lambda step: Settings(update.lr, estimator.eps, queries))
        self.room = Room()
        self._prepared = False

    @torch.no_grad()
    def step(self, step: int, parts: Sequence[Sequence[EncodedExample]]) -> StepResult:
        """Probe and move; a step without a finite probe moves nothing."""
        if not self._prepared:
            self.room.within(parts, lambda pieces: self._prepare(pieces[0]))
        now = self._settings(step)
        self.direction.begin(step)
        seeds = probe_seeds(self.seed, step, now.queries)
        loss = BatchLoss(self.loss, parts, self.most_copies, self.room)
        probe = self.estimator.estimate(self.direction, loss, seeds, now.eps)
        moved = self.update.apply(self.direction, probe, now.lr)
        return StepResult(
            probe.loss, probe.n_forward, not moved, probe.coefficients, kept=self.estimator.kept(probe), lr=now.lr
        )

    @torch.no_grad()
    def repeat(self, step: int, kept: Sequence[float], rates: tuple[float, float] | None = None) -> StepResult:
        """Make an update again from what the journal kept of it, without evaluating a loss.

        Args:
            step: Its number.
            kept: What the journal holds.
            rates: Learning rate and weight decay; None: those of the settings and of the update.
        """
        now = self._settings(step)
        if rates is not None:
            now = replace(now, lr=rates[0])
            self.update.weight_decay = rates[1]
        self.direction.begin(step)
        seeds = probe_seeds(self.seed, step, now.queries)
        if getattr(self.direction, "leaves_rounding", False):
            for seed, scale in asked(self.estimator, seeds, now.eps):
                with self.direction.at(seed, scale):
                    pass
        probe = self.estimator.recall(seeds, kept, now.eps)
        moved = self.update.apply(self.direction, probe, now.lr)
        forwards = self.estimator.forwards(now.queries)
        return StepResult(None, forwards, not moved, probe.coefficients, kept=tuple(kept), lr=now.lr)

    def _prepare(self, part: Sequence[EncodedExample]) -> None:
        found: list[float] = []
        self.direction.prepare(lambda: found.append(float(self.loss(part))))
        while len(found) < 2:
            found.append(float(self.loss(part)))
        if found[-1] != found[-2] and not all(map(math.isnan, found[-2:])):
            raise ModelError(
                Problem(
                    "loss-not-deterministic",
                    f"{found[-2]!r}, then {found[-1]!r}, for the same rows at the same weights",
                    "a forward-only step compares losses, and here they differ without any perturbation",
                    "Look for dropout that stays on in evaluation mode, for sampling inside the loss, or for GPU "
                    "kernels that add with atomics (torch.use_deterministic_algorithms finds them).",
                )
            )
        self._prepared = True

    @torch.no_grad()
    def settle(self) -> None:
        """Bring all moves into the stored weights."""
        self.direction.settle()

    def weights(self) -> dict[str, Tensor]:
        """The stored weights that are trained."""
        return self.direction.weights()

    def state(self) -> dict[str, Tensor]:
        """What the direction, the estimator and the update remember beside the weights."""
        state = dict(self.direction.state())
        state |= {f"estimator.{name}": value for name, value in self.estimator.state().items()}
        return state | {f"update.{name}": value for name, value in self.update.state().items()}

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor], state: dict[str, Tensor]) -> None:
        """Take up saved weights and state."""
        self.direction.load(weights, state)
        for part, prefix in ((self.estimator, "estimator."), (self.update, "update.")):
            part.load({name.removeprefix(prefix): each for name, each in state.items() if name.startswith(prefix)})

    @contextmanager
    def training(self) -> Iterator[None]:
        """Steps are made in evaluation mode (no dropout): both sides of a probe see the same function."""
        self.model.eval()
        yield

    def close(self) -> None:
        """Take the direction off the model."""
        self.direction.close()
