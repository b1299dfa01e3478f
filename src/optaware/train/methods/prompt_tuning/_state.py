"""Where an arm stands: what a checkpoint holds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from optaware.records import Record
from optaware.train._checkpoint import Checkpoint

__all__ = ["Adam", "State"]


class State(Record):
    """Counters of an arm; its tensors lie beside them."""

    at: int = 0
    """Instruction that is worked on."""
    within: int = 0
    """Steps (or rounds, for `loop`) of it that are done."""
    step: int = 0
    spent: int = 0
    updates: int = 0
    """Adam's count since the last restart."""
    skipped: int = 0
    trajectory: tuple[tuple[int, ...], ...] = ()
    """Projections since the last restart, one a step."""
    best: float | None = None
    """Fitness loss of the kept prompt."""
    empty: int = 0
    """Rounds in a row without a usable proposal."""
    rounds: tuple[dict[str, Any], ...] = ()
    """What each round showed, for the diagnostics."""

    def with_(self, **changes: Any) -> State:
        """A copy with some fields changed."""
        return self.model_copy(update=changes)


class Adam:
    """Adam (Kingma & Ba, 2015; β 0.9 and 0.999, ε 1e-8) on one tensor, with moments that can be thrown away.

    Args:
        prompt: θ, `[n, d]`, fp32.
        lr: Learning rate.
    """

    def __init__(self, prompt: Tensor, lr: float) -> None:
        self.prompt, self.lr = prompt, lr
        self.first, self.second = torch.zeros_like(prompt), torch.zeros_like(prompt)

    def restart(self, prompt: Tensor) -> None:
        """A new θ with fresh moments."""
        self.prompt.copy_(prompt)
        self.first.zero_()
        self.second.zero_()

    def step(self, gradient: Tensor, number: int) -> None:
        """Update number `number` since the restart, from 1."""
        self.first.mul_(0.9).add_(gradient, alpha=0.1)
        self.second.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
        first, second = self.first / (1 - 0.9**number), self.second / (1 - 0.999**number)
        self.prompt.sub_(self.lr * first / (second.sqrt() + 1e-8))

    def save(self, checkpoint: Checkpoint, state: State, best: Tensor) -> None:
        """Write everything that the next step depends on."""
        tensors = {"prompt": self.prompt, "first": self.first, "second": self.second, "best": best}
        checkpoint.save(state.step, {"prompt": tensors}, {"arm": state.to_json()})

    def load(self, checkpoint: Checkpoint, best: Tensor) -> State:
        """Take up where `save` was called."""
        tensors = checkpoint.load("prompt")
        for name, own in (("prompt", self.prompt), ("first", self.first), ("second", self.second), ("best", best)):
            own.copy_(tensors[name])
        return State.model_validate(checkpoint.state()["arm"])
