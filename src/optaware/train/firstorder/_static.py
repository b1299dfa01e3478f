"""The gradient of a batch from tensors of fixed shape, so that on a GPU it is one captured graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from optaware.models._layout import Layout
from optaware.train._captures import Captures
from optaware.train._static_batch import Batch
from optaware.train._types import Loss
from optaware.train.objectives import TaskObjective

if TYPE_CHECKING:
    from optaware.models import EncodedExample

__all__ = ["StaticGradient", "obstacle"]


def obstacle(model: nn.Module, loss: Loss) -> str | None:
    """Why the gradient of a loss cannot be captured; None: nothing that can be told before the first step."""
    devices = {parameter.device for parameter in model.parameters()}
    kinds = sorted({device.type for device in devices})
    if kinds != ["cuda"]:
        return f"the model is on {' and '.join(kinds)}, not on a CUDA device"
    if len(devices) > 1:
        return "the model is spread over several devices"
    if not isinstance(loss, TaskObjective) or not hasattr(loss.scorer, "layout_loss"):
        return "the loss is not that of answer options"
    if loss.scorer.batching != "tree":
        return "the model does not take the options of an example in one row"
    return None


class StaticGradient:
    """`Σ_parts (rows of the part / rows) · ∂L(part)/∂θ` in fp32, and the loss with the same weights in fp64.

    A step of a small model makes thousands of kernels of a few microseconds, and the host needs longer to launch them
    than the device to run them. Here the forward and backward pass of a batch are one graph, captured for each shape of
    batch. Rows are padded to a few lengths, which changes no result but by rounding.

    Args:
        loss: The objective.
        parameters: What is differentiated by, by name.
        copies: Tensors of the same shapes in fp32; gradients are left in their `grad`.
        captures: What holds batches and graphs.
    """

    def __init__(
        self, loss: TaskObjective, parameters: Mapping[str, Tensor], copies: Mapping[str, Tensor], captures: Captures
    ) -> None:
        self.loss, self.captures = loss, captures
        self._leaves = list(parameters.values())
        self._copies = [copies[name] for name in parameters]
        self._sums: list[Tensor] = []
        self._total = torch.zeros((), dtype=torch.float64, device=captures.device)
        self._unused: set[int] = set()

    def takes(self, parts: Sequence[Sequence[EncodedExample]]) -> bool:
        """Whether all parts can be laid out in tensors of fixed shape."""
        return all(self.loss.scorer.takes_layouts(part) for part in parts)

    def __call__(self, parts: Sequence[Sequence[EncodedExample]]) -> float:
        """The loss; the gradient is in `grad` of the copies afterwards, which keep it until the next call."""
        size = sum(len(part) for part in parts)
        self._total.zero_()
        if self._sums:
            torch._foreach_zero_(self._sums)
        else:  # outside the graphs' memory, which the next graph writes over
            self._sums = [torch.zeros_like(each, dtype=torch.float32) for each in self._copies]
        for part in parts:
            batch = self.captures.send(part, self.loss.objective, len(part) / size)
            self.captures.run(("gradient", batch.shape), partial(self._add, batch))
        for at, (copy, total) in enumerate(zip(self._copies, self._sums, strict=True)):
            copy.grad = None if at in self._unused else total
        return float(self._total)

    def _add(self, batch: Batch) -> None:
        layout = Layout(
            ids=batch.ids,
            mask=batch.segments >= 0,
            positions=batch.positions,
            segments=batch.segments,
            keep=batch.keep,
            columns=batch.columns,
            tokens=batch.tokens,
            lengths=batch.lengths,
            branches=True,
            padded=True,
        )
        labels = batch.labels.flatten() if batch.contrast else None
        loss = self.loss.scorer.layout_loss(layout, labels) * batch.share.float()
        gradients = torch.autograd.grad(loss, self._leaves, allow_unused=True)
        self._unused = {at for at, gradient in enumerate(gradients) if gradient is None}
        pairs = [(total, each) for total, each in zip(self._sums, gradients, strict=True) if each is not None]
        torch._foreach_add_([total for total, _ in pairs], [each for _, each in pairs])
        self._total.add_(loss.detach())

    def forget(self) -> None:
        """Let go of the graphs and of all gradients."""
        self.captures.forget()
        self._sums = []
