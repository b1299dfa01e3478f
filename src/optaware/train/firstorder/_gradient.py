"""The gradient of a batch: by calling the model, or as a captured graph once that has been seen to give the same."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from optaware.models import is_out_of_memory
from optaware.train._captures import Captures
from optaware.train._seeds import derive_seed
from optaware.train._types import Loss
from optaware.train.firstorder._static import StaticGradient, obstacle
from optaware.train.objectives import TaskObjective

if TYPE_CHECKING:
    from optaware.models import EncodedExample

__all__ = ["Gradient"]

_log = logging.getLogger("optaware")

_FAR = {torch.float64: 1e-6, torch.float32: 1e-2, torch.bfloat16: 0.25}
"""How far loss and gradient of a captured step may be from those of the model as it is called, relatively, for weights
of a dtype. Measured with SmolLM2-135M in bf16, whose rows are then padded otherwise: gradients 1 to 4 % apart."""

Parts = Sequence["Sequence[EncodedExample]"]


class Gradient:
    """`Σ_parts (rows of the part / rows) · ∂L(part)/∂θ`, in fp32, left in `grad` of the parameters or their copies.

    Dropout is drawn from a stream of its own for each step.

    Attributes:
        engine: `captured`, or `not captured: ` and why.

    Args:
        model: The model.
        loss: The objective, with its mean over examples.
        parameters: What is trained, by name.
        copies: Their copies in fp32, or themselves where they are in fp32 already.
        seed: The run's seed.
        call_because: Why the model must be called for every gradient; None: it need not.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        parameters: Mapping[str, Tensor],
        copies: Mapping[str, Tensor],
        *,
        seed: int,
        call_because: str | None = None,
    ) -> None:
        self.loss, self.parameters, self.copies, self.seed = loss, parameters, copies, seed
        self._devices = list({each.device for each in parameters.values() if each.device.type == "cuda"})
        self._agreed = False
        self._far = max(_FAR.get(each.dtype, 0.25) for each in model.parameters())  # trained or not: all of them round
        why = call_because or obstacle(model, loss)
        self.engine = f"not captured: {why}" if why else "captured"
        self.static: StaticGradient | None = None
        if why is None and isinstance(loss, TaskObjective):
            self.static = StaticGradient(loss, parameters, copies, Captures(self._devices[0]))

    def __call__(self, step: int, parts: Parts) -> float:
        """Loss of the batch, and its gradient in `grad` of the copies; the first time both ways are taken."""
        self.clear()
        if self.static is None or not self.static.takes(parts):
            return self._called(step, parts)[0]
        return self.static(parts) if self._agreed else self._both(self.static, step, parts)

    def clear(self) -> None:
        """Let go of the gradients of the last batch."""
        for each in (*self.parameters.values(), *self.copies.values()):
            each.grad = None

    def forget(self) -> bool:
        """Let go of the memory that graphs hold; they are captured anew when they are needed."""
        self.clear()
        if self.static is not None:
            self.static.forget()
        return True

    def _called(self, step: int, parts: Parts) -> tuple[float, bool]:
        """The loss by calling the model, and whether that drew random numbers."""
        size = sum(len(part) for part in parts)
        total = 0.0
        with torch.random.fork_rng(devices=self._devices):
            torch.manual_seed(derive_seed(self.seed, "dropout", step))
            before = self._random_states()
            for part in parts:
                loss = self.loss(part) * (len(part) / size)
                loss.backward()  # type: ignore[no-untyped-call]
                total += float(loss.detach())
                self._collect()
            drew = any(not torch.equal(*pair) for pair in zip(before, self._random_states(), strict=True))
        return total, drew

    def _random_states(self) -> list[Tensor]:
        return [torch.get_rng_state(), *map(torch.cuda.get_rng_state, self._devices)]

    def _collect(self) -> None:
        """Add the gradients of half-precision parameters to those of their fp32 copies."""
        for name, parameter in self.parameters.items():
            copy = self.copies[name]
            if copy is parameter or parameter.grad is None:
                continue
            if copy.grad is None:
                copy.grad = parameter.grad.float()
            else:
                copy.grad.add_(parameter.grad)
            parameter.grad = None

    def _both(self, static: StaticGradient, step: int, parts: Parts) -> float:
        """Take both ways; later steps are captured only if they agree. Without a finite gradient that is not seen."""
        loss, drew = self._called(step, parts)
        called = [each.grad for each in self.copies.values()]
        size = _norm(called)
        if not (math.isfinite(loss) and math.isfinite(size)):
            return loss
        found = loss
        try:
            found = loss if drew else static(parts)
            fault = "it draws random numbers (dropout)" if drew else self._fault(loss, found, called, size)
        except RuntimeError as error:
            told = str(error).strip().splitlines()[0][:200]
            fault = "its graphs have no room in memory" if is_out_of_memory(error) else f"its check failed: {told}"
        if fault is None:
            self._agreed = True
            return found
        _log.warning("steps are not captured on the GPU: %s", fault)
        self.engine = f"not captured: {fault}"
        static.forget()
        self.static = None
        for copy, gradient in zip(self.copies.values(), called, strict=True):
            copy.grad = gradient
        return loss

    def _fault(self, loss: float, found: float, called: Sequence[Tensor | None], size: float) -> str | None:
        """In which way a captured gradient, now in the copies, is not the one of the model as it is called."""
        captured = [each.grad for each in self.copies.values()]
        if [each is None for each in called] != [each is None for each in captured]:
            return "its check failed: other parameters have a gradient"
        apart = _norm(a - b for a, b in zip(called, captured, strict=True) if a is not None and b is not None)
        _log.debug("check of the captured step: loss %s and %s, gradients %s apart of %s", loss, found, apart, size)
        if not abs(found - loss) <= self._far * (1 + abs(loss)) or not apart <= self._far * size:
            return f"its check failed: losses {loss} and {found}, gradients of norm {size} and {apart} apart"
        return None


def _norm(tensors: Iterable[Tensor | None]) -> float:
    return math.hypot(*(float(each.norm()) for each in tensors if each is not None))
