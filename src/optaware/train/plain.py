"""MeZO and its variants as their papers write them, as one plain loop: what the faster forms are tested against."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from optaware.train._room import Room
from optaware.train._seeds import derive_seed, generator
from optaware.train._types import Loss, StepResult
from optaware.train.directions.gaussian import gaussian_noise
from optaware.train.estimators import to_float32

if TYPE_CHECKING:
    from optaware.models import EncodedExample

__all__ = ["Noise", "PlainMeZO", "PlainVariant"]

Noise = Callable[[int, str, nn.Parameter], Tensor]
"""z of one parameter, from the probe's seed, the parameter's name and the parameter (for its shape, dtype, device)."""


def gaussian(seed: int, name: str, parameter: nn.Parameter) -> Tensor:
    """Dense z ~ N(0, I) in the parameter's own dtype, as the paper's code draws it."""
    source = generator(0, parameter.device)
    return gaussian_noise(seed, name, parameter.shape, dtype=parameter.dtype, source=source)


class PlainMeZO:
    """Algorithm 1 of MeZO: perturb in place, forward, perturb back past the weights, forward, restore, descend.

    `g = (L(θ + eps·z) − L(θ − eps·z)) / (2·eps)`; `θ ← θ − lr·(g·z + weight_decay·θ)` (no decay on vectors). Noise is
    drawn again for each of the four passes over the weights and never stored. With `queries` n > 1 the n estimates of
    a step are all made at the same weights and averaged (n-SPSA, Algorithm 2).

    Restoring by `+ eps·z` leaves rounding behind: after 1000 steps about 2e-6 of the weights' scale in fp32, but 12 %
    in bf16, and of updates of 1e-6 a bf16 weight keeps 3 %. That is what the paper's code does, so it is what this
    reference does; use `direction="low-rank"` for half-precision weights.

    Source: Malladi et al., NeurIPS 2023, Algorithms 1 and 2.
    Differs from the paper: noise comes from one derived seed per step, query and parameter name instead of one global
    stream, so no global generator is touched and the order of the parameters does not matter.

    Args:
        model: Its parameters with `requires_grad` are trained.
        loss: The objective, with its mean over examples.
        lr: Learning rate.
        eps: Perturbation scale.
        queries: Directions per step.
        weight_decay: Decay per unit of learning rate, on matrices.
        seed: The run's seed.
        noise: How z is drawn; tests give other directions, written out.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        *,
        lr: float,
        eps: float,
        queries: int = 1,
        weight_decay: float = 0.0,
        seed: int = 0,
        noise: Noise = gaussian,
    ) -> None:
        self.parameters = {name: each for name, each in model.named_parameters() if each.requires_grad}
        self.model, self.loss = model, loss
        self.lr, self.eps, self.weight_decay = lr, eps, weight_decay
        self.queries, self.seed, self.noise = queries, seed, noise
        self.room = Room()

    def perturb(self, seed: int, scale: float) -> None:
        """`θ ← θ + scale·z(seed)`, in place."""
        for name, parameter in self.parameters.items():
            parameter.data.add_(self.noise(seed, name, parameter), alpha=scale)

    def batch_loss(self, parts: Sequence[Sequence[EncodedExample]]) -> float:
        """Mean loss over a batch given in parts; in smaller ones where memory does not suffice."""
        size = sum(len(part) for part in parts)
        return self.room.within(
            parts, lambda pieces: sum(float(self.loss(piece)) * len(piece) / size for piece in pieces)
        )

    @torch.no_grad()
    def step(self, step: int, parts: Sequence[Sequence[EncodedExample]]) -> StepResult:
        """One update; a step without a finite pair of losses leaves the weights as they are (to rounding)."""
        seeds = [derive_seed(self.seed, "probe", step, query) for query in range(self.queries)]
        losses: list[float] = []
        coefficients: list[float] = []
        for seed in seeds:
            self.perturb(seed, self.eps)
            above = self.batch_loss(parts)
            self.perturb(seed, -2 * self.eps)
            below = self.batch_loss(parts)
            self.perturb(seed, self.eps)
            losses += [above, below]
            coefficients.append(to_float32((above - below) / (2 * self.eps)))
        moved = self.descend(seeds, coefficients)
        finite = [value for value in losses if math.isfinite(value)]
        mean = sum(finite) / len(finite) if finite else None
        return StepResult(mean, 2 * self.queries, not moved, tuple(coefficients))

    @torch.no_grad()
    def repeat(self, step: int, kept: Sequence[float]) -> StepResult:
        """Make an update again from its coefficients; the weights go through the same roundings as in `step`."""
        seeds = [derive_seed(self.seed, "probe", step, query) for query in range(self.queries)]
        for seed in seeds:
            self.perturb(seed, self.eps)
            self.perturb(seed, -2 * self.eps)
            self.perturb(seed, self.eps)
        moved = self.descend(seeds, kept)
        return StepResult(None, 2 * self.queries, not moved, tuple(kept), kept=tuple(kept))

    def descend(self, seeds: Sequence[int], coefficients: Sequence[float]) -> bool:
        """`θ ← θ − lr·(mean_j g_j·z_j + weight_decay·θ)` over the finite coefficients; False when there are none."""
        usable = [(seed, g) for seed, g in zip(seeds, coefficients, strict=True) if math.isfinite(g)]
        if usable and self.weight_decay:
            for parameter in self.parameters.values():
                if parameter.ndim > 1:
                    parameter.data.mul_(1.0 - self.lr * self.weight_decay)
        for seed, g in usable:
            self.perturb(seed, -self.lr * g / len(usable))
        return bool(usable)

    def settle(self) -> None:
        """Nothing to do: every update is in the weights already."""

    def weights(self) -> dict[str, Tensor]:
        """The trained weights."""
        return {name: parameter.data for name, parameter in self.parameters.items()}

    def state(self) -> dict[str, Tensor]:
        """Nothing: the next step depends on the weights, the seed and the step only."""
        return {}

    def load(self, weights: dict[str, Tensor], state: dict[str, Tensor]) -> None:
        """Take up saved weights."""
        for name, parameter in self.parameters.items():
            parameter.data.copy_(weights[name])

    @contextmanager
    def training(self) -> Iterator[None]:
        """Steps are made in evaluation mode (no dropout), as in the paper's code."""
        self.model.eval()
        yield

    def close(self) -> None:
        """Nothing to take off the model."""


class PlainVariant(PlainMeZO):
    """The other estimators and updates, written down with dense gradients and moments: for tests, not for training.

    Source: as in `optaware.train.estimators` and `optaware.train.updates`.

    Args:
        model: Its parameters with `requires_grad` are trained.
        loss: The objective, with its mean over examples.
        estimator: `two-point`, `one-sided`, `one-point` or `one-point-residual`.
        update: `sgd`, `sign`, `momentum` or `adam`.
        normalise: Divide differences by the standard deviation of the perturbed losses instead of by eps.
        betas: Decay of the moments.
        adam_eps: Added to the root of the second moment.
        clip: Largest size of a coefficient.
        settings: As for `PlainMeZO`.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        *,
        estimator: str = "two-point",
        update: str = "sgd",
        normalise: bool = False,
        betas: tuple[float, float] = (0.9, 0.999),
        adam_eps: float = 1e-8,
        clip: float = math.inf,
        **settings: Any,
    ) -> None:
        super().__init__(model, loss, **settings)
        self.estimator, self.update, self.normalise = estimator, update, normalise
        self.betas, self.adam_eps, self.clip = betas, adam_eps, clip
        self.last: list[float] | None = None
        self.first = {name: torch.zeros_like(each) for name, each in self.parameters.items()}
        self.second = {name: torch.zeros_like(each) for name, each in self.parameters.items()}
        self.count = 0

    def loss_at(self, seed: int, scale: float, parts: Sequence[Sequence[EncodedExample]]) -> float:
        """Loss at `θ + scale·z(seed)`."""
        stored = {name: each.data.clone() for name, each in self.parameters.items()}
        self.perturb(seed, scale)
        value = self.batch_loss(parts)
        for name, each in self.parameters.items():
            each.data.copy_(stored[name])
        return value

    def estimate(self, seeds: Sequence[int], parts: Sequence[Sequence[EncodedExample]]) -> list[float]:
        """Coefficient g of each direction."""
        above = [self.loss_at(seed, self.eps, parts) for seed in seeds]
        if self.estimator == "two-point":
            below = [self.loss_at(seed, -self.eps, parts) for seed in seeds]
            unit = torch.tensor(above + below, dtype=torch.float64).std().item() if self.normalise else self.eps
            return [(a - b) / (2 * unit) for a, b in zip(above, below, strict=True)]
        if self.estimator == "one-sided":
            clean = self.batch_loss(parts)
            unit = torch.tensor(above, dtype=torch.float64).std().item() if self.normalise else self.eps
            return [(a - clean) / unit for a in above]
        if self.estimator == "one-point":
            return [a / self.eps for a in above]
        before, self.last = self.last or above, above
        return [(a - b) / self.eps for a, b in zip(above, before, strict=True)]

    @torch.no_grad()
    def step(self, step: int, parts: Sequence[Sequence[EncodedExample]]) -> StepResult:
        """One update, with the gradient estimate written out."""
        seeds = [derive_seed(self.seed, "probe", step, query) for query in range(self.queries)]
        coefficients = [to_float32(each) for each in self.estimate(seeds, parts)]
        clipped = [max(-self.clip, min(self.clip, each)) for each in coefficients]
        self.count += 1
        for name, parameter in self.parameters.items():
            terms = [g * self.noise(seed, name, parameter) for seed, g in zip(seeds, clipped, strict=True)]
            if parameter.ndim > 1:
                parameter.data.mul_(1.0 - self.lr * self.weight_decay)
            parameter.data.sub_(self.lr * self.change(name, torch.stack(terms).mean(0)))
        return StepResult(None, 0, False, tuple(coefficients))

    def change(self, name: str, gradient: Tensor) -> Tensor:
        """What the update makes of a gradient estimate."""
        beta, beta2 = self.betas
        if self.update == "sign":
            return gradient.sign()
        if self.update == "momentum":
            self.first[name] = beta * self.first[name] + gradient
            return self.first[name]
        if self.update == "adam":
            self.first[name] = beta * self.first[name] + (1 - beta) * gradient
            self.second[name] = beta2 * self.second[name] + (1 - beta2) * gradient**2
            first = self.first[name] / (1 - beta**self.count)
            second = self.second[name] / (1 - beta2**self.count)
            return first / (second.sqrt() + self.adam_eps)
        return gradient
