"""The step that all first-order methods share."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from optaware.train._room import Room
from optaware.train._types import Loss, StepResult
from optaware.train.firstorder._gradient import Gradient

if TYPE_CHECKING:
    from optaware.models import EncodedExample

__all__ = ["AdamWLearner"]


class AdamWLearner:
    """AdamW (β 0.9, 0.999; ε 1e-8) at a constant learning rate on fp32 master weights.

    The model computes in the dtype that it was loaded in, so all methods of a study run the same forward pass. For
    weights in half precision the optimizer holds fp32 copies: gradients of the parts of a batch are summed, clipped and
    applied in fp32 and the stored weights are roundings of the copies. Updates far below a bf16 step are thus not lost.
    Memory is 16 bytes a trained parameter (weight and gradient 2 each, copy 4, moments 8) beside 4 for the fp32 sum of
    gradients.

    Dropout is drawn from a stream of its own for each step. On a CUDA device the gradient is one captured graph for
    each shape of batch, where the first step has shown that this gives the gradient of the model as it is called.

    Args:
        model: Its parameters with `requires_grad` are trained.
        loss: The objective, with its mean over examples.
        lr: Learning rate.
        weight_decay: Decoupled decay, on matrices only.
        max_grad_norm: Gradients are scaled down to this norm; None: left alone.
        seed: The run's seed.
        call_because: Why no CUDA graphs are captured; None: they are, where that can be done.
    """

    queries = 0

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        *,
        lr: float,
        weight_decay: float = 0.0,
        max_grad_norm: float | None = 1.0,
        seed: int = 0,
        call_because: str | None = None,
    ) -> None:
        self.model, self.loss = model, loss
        self.max_grad_norm = max_grad_norm
        self.room = Room()
        self.parameters = {name: each for name, each in model.named_parameters() if each.requires_grad}
        self.masters = {
            name: parameter.data.float().requires_grad_() if parameter.dtype.itemsize < 4 else parameter
            for name, parameter in self.parameters.items()
        }
        matrices = [each for each in self.masters.values() if each.ndim > 1]
        vectors = [each for each in self.masters.values() if each.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        # One pass over the weights instead of eight. On other devices PyTorch chooses.
        fused = True if all(each.device.type in ("cpu", "cuda") for each in self.masters.values()) else None
        self.optimizer = torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, fused=fused)
        self.gradient = Gradient(model, loss, self.parameters, self.masters, seed=seed, call_because=call_because)

    def step(self, step: int, parts: Sequence[Sequence[EncodedExample]]) -> StepResult:
        """Sum the gradients of the parts and make one update; without a finite loss and gradient, none."""
        total = self.room.within(parts, lambda pieces: self.gradient(step, pieces), self.gradient.forget)
        norm = torch.nn.utils.get_total_norm(each.grad for each in self.masters.values() if each.grad is not None)
        length = float(norm)
        usable = math.isfinite(total) and math.isfinite(length)
        if usable:
            self._update(norm)
        self.gradient.clear()
        forwards = 3  # a forward and a backward pass, which counts as two more
        return StepResult(
            total if math.isfinite(total) else None, forwards, not usable, (), length if math.isfinite(length) else None
        )

    def _update(self, norm: Tensor) -> None:
        if self.max_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.masters.values(), self.max_grad_norm, norm)
        self.optimizer.step()
        halves = [name for name, master in self.masters.items() if master is not self.parameters[name]]
        if halves:
            stored, exact = ([side[name].data for name in halves] for side in (self.parameters, self.masters))
            torch._foreach_copy_(stored, exact)

    def settle(self) -> None:
        """Nothing to do: every update is in the weights already."""

    def weights(self) -> dict[str, Tensor]:
        """The trained weights, in the model's dtype."""
        return {name: parameter.data for name, parameter in self.parameters.items()}

    def state(self) -> dict[str, Tensor]:
        """AdamW's moments and step counts, and the fp32 copies where there are any."""
        state: dict[str, Tensor] = {}
        for name, master in self.masters.items():
            if master is not self.parameters[name]:
                state[f"master.{name}"] = master.data
            for key, value in self.optimizer.state.get(master, {}).items():
                state[f"{key}.{name}"] = value
        return state

    def load(self, weights: dict[str, Tensor], state: dict[str, Tensor]) -> None:
        """Take up saved weights and state."""
        fused = self.optimizer.defaults["fused"]
        for name, parameter in self.parameters.items():
            parameter.data.copy_(weights[name])
            master = self.masters[name]
            if master is not parameter:
                master.data.copy_(state[f"master.{name}"])
            if f"step.{name}" in state:
                self.optimizer.state[master] = {
                    "step": state[f"step.{name}"].to(master.device if fused else "cpu", copy=True),
                    "exp_avg": state[f"exp_avg.{name}"].to(master.device, copy=True),
                    "exp_avg_sq": state[f"exp_avg_sq.{name}"].to(master.device, copy=True),
                }

    @contextmanager
    def training(self) -> Iterator[None]:
        """Steps are made in training mode (dropout as the model and the adapter have it)."""
        modes = [(module, module.training) for module in self.model.modules()]
        self.model.train()
        try:
            yield
        finally:
            for module, mode in modes:
                module.training = mode

    def close(self) -> None:
        """Let go of gradients and graphs."""
        self.gradient.forget()
