"""Dense directions for any model: a perturbed copy stands in for each weight during a probe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from optaware.errors import ModelError, Problem
from optaware.train._seeds import generator
from optaware.train.directions._merge import RESIDUAL_SCALE
from optaware.train.directions.gaussian import gaussian_noise
from optaware.train.noise import noise_key, reference_noise

__all__ = ["Swapped"]


class Swapped:
    """`θ + scale·z`, z dense, is put in the place of every weight for the time of a probe; no stored weight is written.

    It asks nothing of the model's modules, and restoring is exact, because the stored tensor itself comes back. A probe
    holds one more copy of the trained weights.

    Moves are added in fp32. A weight of fewer bits has a residual beside it that keeps what rounding took off (2 bytes
    a parameter), so that small moves add up.

    Source: Malladi et al., NeurIPS 2023 (Gaussian z); FZOO (Dang et al., ICLR 2026) (Rademacher z).

    Args:
        model: Its parameters with `requires_grad` are moved.
        distribution: Of z.
        residual: Whether half-precision weights have residuals; without them each move is rounded at once.

    Raises:
        ModelError: No parameter is trained.
    """

    supports_batch = False
    basis = 0

    def __init__(
        self, model: nn.Module, *, distribution: Literal["gaussian", "rademacher"] = "gaussian", residual: bool = True
    ) -> None:
        self.parameters = {name: each for name, each in model.named_parameters() if each.requires_grad}
        if not self.parameters:
            raise ModelError(
                Problem(
                    "nothing-to-train",
                    type(model).__name__,
                    "none of its parameters has requires_grad",
                    "Train all parameters, or add an adapter (parameters: lora).",
                )
            )
        self._distribution = distribution
        self._stored = {name: each.data for name, each in self.parameters.items()}
        self._residuals = {
            name: torch.zeros_like(each) for name, each in self._stored.items() if residual and each.dtype.itemsize < 4
        }
        self._sources = {each.device: generator(0, each.device) for each in self._stored.values()}

    def prepare(self, run: Callable[[], object]) -> None:
        """Nothing to see."""

    def begin(self, step: int) -> None:
        """Nothing is redrawn from step to step."""

    def coordinates(self, seed: int, name: str) -> Tensor:
        """z itself, fp32 (fp64 for fp64 weights)."""
        weight = self._stored[name]
        exact = torch.promote_types(weight.dtype, torch.float32)
        if self._distribution == "gaussian":
            return gaussian_noise(seed, name, weight.shape, dtype=exact, source=self._sources[weight.device])
        z = reference_noise(noise_key(seed, name), weight.shape, "rademacher", device=weight.device)
        return z.to(exact)

    @contextmanager
    def at(self, seed: int, scale: float) -> Iterator[None]:
        """Inside, the model computes with `θ + scale·z(seed)`."""
        try:
            if scale:
                for name, parameter in self.parameters.items():
                    z = self.coordinates(seed, name)
                    parameter.data = z.mul_(scale).add_(self._stored[name]).to(parameter.dtype)
            yield
        finally:
            for name, parameter in self.parameters.items():
                parameter.data = self._stored[name]

    def move(self, seed: int, amount: float) -> None:
        """`θ ← θ + amount·z(seed)`."""
        for name in self._stored:
            self.shift(name, self.coordinates(seed, name).mul_(amount))

    def shift(self, name: str, change: Tensor) -> None:
        """`θ ← θ + change` for one parameter."""
        weight, residual = self._stored[name], self._residuals.get(name)
        if weight.dtype == change.dtype:
            weight.add_(change)
            return
        total = weight.to(change.dtype) + change
        if residual is not None:
            total.add_(residual, alpha=1.0 / RESIDUAL_SCALE)
        weight.copy_(total)
        if residual is not None:
            residual.copy_(total.sub_(weight).mul_(RESIDUAL_SCALE))

    def decay(self, factor: float) -> None:
        """`θ ← factor·θ` for matrices."""
        for name, weight in self._stored.items():
            if weight.ndim > 1:
                self.shift(name, weight.to(torch.promote_types(weight.dtype, torch.float32)) * (factor - 1.0))

    def settle(self) -> None:
        """Nothing to do: moves are in the stored weights."""

    def weights(self) -> dict[str, Tensor]:
        """The stored weights."""
        return dict(self._stored)

    def state(self) -> dict[str, Tensor]:
        """The residuals."""
        return {f"residual.{name}": each for name, each in self._residuals.items()}

    def load(self, weights: dict[str, Tensor], state: dict[str, Tensor]) -> None:
        """Take up saved weights and residuals."""
        for name, stored in self._stored.items():
            stored.copy_(weights[name])
        for name, residual in self._residuals.items():
            residual.copy_(state[f"residual.{name}"])

    def close(self) -> None:
        """Nothing was put on the model."""
