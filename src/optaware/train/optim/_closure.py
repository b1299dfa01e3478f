"""What a closure is asked for: one finite loss for the same weights, without a backward pass."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from optaware.errors import InputError, ModelError, Problem

__all__ = ["Closure", "check_repeats", "still"]


class Closure:
    """A user's closure as a loss: a float each time it is called.

    A closure may offer to evaluate copies of its batch at once: `most_copies` (how many) and `copies(count)`, which
    gives the loss of each copy. Directions that can perturb copies differently then need fewer forward passes.

    Args:
        run: The closure.
        most_copies: Copies that the method lets go through the model at once.
    """

    def __init__(self, run: Callable[[], Any], most_copies: int = 32) -> None:
        self.run = run
        self.most_copies = min(most_copies, int(getattr(run, "most_copies", 1)))
        self.device: torch.device | None = None

    def __call__(self) -> float:
        """The loss.

        Raises:
            InputError: The closure calls `backward`, or gives no number.
        """
        # Autocast may keep its cast of a weight; at the next point that is another weight.
        torch.clear_autocast_cache()
        with _told_of_backward():
            return self._number(self.run())

    def copies(self, count: int) -> list[float]:
        """The loss of each of `count` copies of the closure's batch, which the model computes in different ways."""
        torch.clear_autocast_cache()
        with _told_of_backward():
            return [self._number(value) for value in self.run.copies(count)]  # type: ignore[attr-defined]

    def _number(self, value: Any) -> float:
        if isinstance(value, Tensor):
            if value.numel() != 1 or value.is_complex():
                raise _no_loss(f"a tensor of shape {tuple(value.shape)} and dtype {value.dtype}")
            if value.is_floating_point() and value.element_size() < 4:
                warnings.warn(
                    f"the closure's loss is {value.dtype}: near 1 it has steps of {torch.finfo(value.dtype).eps:.0e}, "
                    "which drown the difference of two losses; compute the loss from logits.float()",
                    stacklevel=2,
                )
            self.device = value.device
            return float(value)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        raise _no_loss(type(value).__name__)


@contextmanager
def _told_of_backward() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        if "does not require grad" in str(error):
            raise _calls_backward() from error
        raise


def _no_loss(given: str) -> InputError:
    return InputError(
        Problem(
            "closure-loss",
            f"the closure returned {given}",
            "a probe is the difference of two losses, each a single number",
            "Return the mean loss of the batch: a tensor of one element, or a float.",
        )
    )


def _calls_backward() -> InputError:
    return InputError(
        Problem(
            "closure-backward",
            "the closure calls backward()",
            "a forward-only optimizer needs losses alone, and gradients would cost the memory that it saves",
            "Return the loss from the closure and leave backward() out.",
        )
    )


def check_repeats(first: float, second: float) -> None:
    """Refuse a closure that gave two losses for the same weights.

    Raises:
        ModelError: They differ.
    """
    if first == second or (math.isnan(first) and math.isnan(second)):
        return
    raise ModelError(
        Problem(
            "loss-not-deterministic",
            f"{first!r}, then {second!r}, from the same closure at the same weights",
            "a forward-only step compares losses, and here they differ without any perturbation",
            "Let the closure use one batch, drawn outside of it; look for dropout that stays on in evaluation mode, "
            "for sampling inside the loss, or for GPU kernels that add with atomics.",
        )
    )


@contextmanager
def still(model: nn.Module) -> Iterator[None]:
    """Put everything inside `model` into evaluation mode, and back afterwards; the flag of `model` itself stays.

    Dropout must not differ between two probes. But trainers read `model.training` to tell training from evaluation
    (TRL names its metrics by it), so the outermost module keeps its mode.
    """
    modules = [module for module in model.modules() if module is not model and module.training]
    for module in modules:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module in modules:
            module.training = True
