"""What passes between the parts of training, and out of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from optaware.records import EvalRecord, Record, Score, StepRecord

if TYPE_CHECKING:
    from torch import Tensor

    from optaware.models import EncodedExample

__all__ = ["EvalEvent", "Learner", "Loss", "Probe", "StepEvent", "StepResult", "TrainEvent", "TrainOutcome"]


@dataclass(frozen=True)
class Probe:
    """What forward passes told about the loss around the weights: all that an update needs, and all that is logged.

    Attributes:
        seeds: One per direction z; z is a function of its seed and of the parameter's name, so it is never stored.
        coefficients: Projected gradient g along each z, rounded to float32 (as the journal keeps it) before it is
            used; NaN where a loss was not finite.
        losses: The losses behind each coefficient.
        n_forward: Forward passes of a whole batch that were spent.
    """

    seeds: tuple[int, ...]
    coefficients: tuple[float, ...]
    losses: tuple[tuple[float, ...], ...]
    n_forward: int

    @property
    def usable(self) -> tuple[tuple[int, float], ...]:
        """Seed and coefficient of each direction whose losses were finite."""
        pairs = zip(self.seeds, self.coefficients, strict=True)
        return tuple((seed, value) for seed, value in pairs if math.isfinite(value))

    @property
    def loss(self) -> float | None:
        """Mean of the finite losses; None when there is none."""
        finite = [value for group in self.losses for value in group if math.isfinite(value)]
        return sum(finite) / len(finite) if finite else None


@dataclass(frozen=True)
class StepResult:
    """What one update did; see `StepRecord` for the fields."""

    loss: float | None
    forwards: int
    skipped: bool
    coefficients: tuple[float, ...] = ()
    grad_norm: float | None = None
    kept: tuple[float, ...] = ()
    """What the journal keeps of the step, one float32 per direction."""
    lr: float | None = None
    """Learning rate of the step; None: the method's constant one."""


class Loss(Protocol):
    """The objective: mean loss (fp32 scalar) over some examples, as `OptionScorer.loss` with the objective bound."""

    def __call__(self, batch: Sequence[EncodedExample]) -> Tensor:
        """Loss over `batch`, with gradients when they are enabled."""
        ...


class Learner(Protocol):
    """A training method as the loop sees it: it owns the trained weights and whatever its updates remember."""

    @property
    def queries(self) -> int:
        """Coefficients that each step writes to the journal; 0 for methods that need no journal."""
        ...

    def step(self, step: int, parts: Sequence[Sequence[EncodedExample]]) -> StepResult:
        """Make update number `step` (from 1) on one batch, given in parts."""
        ...

    def settle(self) -> None:
        """Bring all that was learnt into the stored weights, so that the bare model computes with them."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """The stored weights that are trained, by name (not copies)."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Everything else that the next step depends on, by name."""
        ...

    def load(self, weights: dict[str, Tensor], state: dict[str, Tensor]) -> None:
        """Take up where `weights()` and `state()` were taken."""
        ...

    def training(self) -> AbstractContextManager[None]:
        """What must hold around steps (training or evaluation mode of the modules)."""
        ...

    def close(self) -> None:
        """Leave a bare model: no hooks. It may be called twice."""
        ...


@dataclass(frozen=True)
class StepEvent:
    """One update was made."""

    record: StepRecord
    steps: int
    """Updates asked for."""


@dataclass(frozen=True)
class EvalEvent:
    """One evaluation on the dev rows was made."""

    record: EvalRecord
    steps: int
    """Updates asked for."""


TrainEvent = StepEvent | EvalEvent


class TrainOutcome(Record):
    """How a training stage ended; the run's result is made from it and from the score on the test rows."""

    best_step: int
    """The step whose weights the model now holds."""
    steps: int
    """Updates made, skipped ones included (fewer than asked for after an early stop)."""
    forwards: int
    """Forward passes of a whole batch (a backward pass counts as two more); evaluations not included."""
    skipped: int
    train_s: float
    eval_s: float
    step_s_median: float | None
    peak_memory_bytes: int
    dev: Score | None
    """Score on the dev rows at `best_step`; None when no evaluation gave a finite loss."""
    outcome: Literal["done", "diverged"]
    detail: str = ""
