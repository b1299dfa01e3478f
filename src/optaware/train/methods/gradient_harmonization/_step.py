from __future__ import annotations

import logging

import torch
from torch import Tensor

from optaware.records import GradientHarmonization
from optaware.train.methods.gradient_harmonization._aggregate import capturable, make_aggregator
from optaware.train.methods.gradient_harmonization._inner import task_gradients
from optaware.train.methods.gradient_harmonization._network import Network, Params
from optaware.train.methods.gradient_harmonization._tasks import TaskBatch, images_of
from optaware.train.methods.gradient_harmonization._update import Adam, combine

__all__ = ["MetaStep"]

_WARM_UP = 3

_log = logging.getLogger("optaware")


class MetaStep:
    """One meta-update: task gradients, their aggregate, Adam. On a GPU it is recorded as a CUDA graph and replayed.

    Args:
        network: The classifier.
        params: θ, changed in place.
        images: Training images, uint8, on the device.
        method: The config.
        shots: Support images per class.
        seed: Of the run.
        chunk: Tasks computed at once.
    """

    def __init__(
        self,
        network: Network,
        params: Params,
        images: Tensor,
        method: GradientHarmonization,
        *,
        shots: int,
        seed: int,
        chunk: int | None = None,
    ) -> None:
        self.params, self.images, self.method, self.shots = params, images, method, shots
        self.gradients = task_gradients(
            network, method.inner, lr=method.inner_lr, steps=method.inner_steps, chunk=chunk
        )
        self.aggregator = make_aggregator(method, seed)
        self.adam = Adam(params)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._output: Tensor | None = None
        self.recorded = images.device.type == "cuda" and capturable(method)

    def __call__(self, batch: TaskBatch, lr: float, share: float) -> Tensor:
        """Make one update. On a GPU it is under way when this returns; reading the figures waits for it.

        Args:
            batch: The tasks.
            lr: Meta learning rate.
            share: λ.

        Returns:
            Mean query loss, norm of the gradient, 1.0 if the update was made, and `FIGURES`; good until the next call.
        """
        given = (*batch.tensors(), torch.tensor([lr, share], dtype=torch.float32))
        if self.recorded and self._graph is None:
            self._inputs = tuple(tensor.to(self.images.device) for tensor in given)
            self._record()
        if self._graph is None or self._output is None:
            return self._compute(*(tensor.to(self.images.device) for tensor in given))
        for held, tensor in zip(self._inputs, given, strict=True):
            held.copy_(tensor)
        self._graph.replay()
        return self._output

    def _record(self) -> None:
        """Warm up on a side stream, record the graph (which computes nothing), and put the state back as it was.

        Where the graph cannot be recorded, each update is computed step by step: the same numbers, more slowly; the log
        says so.
        """
        held = [*self.params.values(), *self.adam.state().values()]
        before = [tensor.clone() for tensor in held]
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                self._compute(*self._inputs)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._output = self._compute(*self._inputs)
            self._graph = graph
        except RuntimeError as error:
            self.recorded = False
            self._output = None
            _log.warning("no CUDA graph, updates are computed one operation at a time: %s", error)
        for tensor, value in zip(held, before, strict=True):
            tensor.copy_(value)

    def _compute(
        self, classes: Tensor, drawings: Tensor, inverted: Tensor, query_labels: Tensor, scalars: Tensor
    ) -> Tensor:
        support, labels, query = images_of(self.images, classes, drawings, inverted, self.shots)
        gradients, losses = self.gradients(self.params, support, labels, query, query_labels)
        direction, figures = combine(gradients, self.method, self.aggregator, scalars[1])
        made, norm = self.adam.step(direction, scalars[0])
        return torch.cat([torch.stack([losses.mean(), norm, made.to(norm.dtype)]), figures])
