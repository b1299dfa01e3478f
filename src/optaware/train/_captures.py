"""Work on batches of fixed shape, captured as CUDA graphs: the host launches one graph where it launched thousands of
kernels."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from optaware.train._static_batch import Batch, Filler, Shape, make_batch, shape_of

if TYPE_CHECKING:
    from optaware.models import EncodedExample, Objective

__all__ = ["Captures"]

_MOST_SHAPES = 32


class Captures:
    """Batches at fixed addresses and the graphs that read them, one of each for a shape.

    All graphs draw on one pool of memory, so what a graph works with may be overwritten by the next one: results that
    are to last must be written to tensors from outside.

    Attributes:
        graphs: Whether work is captured; False from then on that capturing failed.

    Args:
        device: Where the work is done.
        graphs: Whether to capture CUDA graphs; by default on CUDA devices.
    """

    def __init__(self, device: torch.device, graphs: bool | None = None) -> None:
        self.device = device
        self.graphs = device.type == "cuda" if graphs is None else graphs
        self._filler = Filler(device.type == "cuda")
        self._batches: dict[Shape, Batch] = {}
        self._captured: dict[tuple[str, Any], Any] = {}
        self._pool: Any = None

    def send(self, examples: Sequence[EncodedExample], objective: Objective, share: float) -> Batch:
        """Copy examples to their place on the device; `share` is their weight in the loss."""
        shape = shape_of(examples, objective)
        if shape not in self._batches:
            if len(self._batches) >= _MOST_SHAPES:
                self.forget()
            self._batches[shape] = make_batch(shape, self.device)
        batch = self._batches[shape]
        batch.flat.copy_(self._filler(examples, shape, share), non_blocking=True)
        return batch

    def run(self, key: tuple[str, Any], work: Callable[[], object]) -> None:
        """Do the work: replay what was captured under its key, capturing it first if need be.

        At its first call the work is done without a graph, which compiles the kernels, and captured for the calls
        after.
        """
        if not self.graphs:
            work()
            return
        if (graph := self._captured.get(key)) is not None:
            graph.replay()
            return
        work()
        torch.cuda.synchronize(self.device)
        graph = torch.cuda.CUDAGraph()
        self._pool = self._pool or torch.cuda.graph_pool_handle()
        try:
            # The workspace of cuBLAS for the capturing stream lies in the graphs' pool, and is shared by all of them.
            _drop_workspaces()
            with torch.cuda.graph(graph, pool=self._pool):
                work()
        except RuntimeError as error:
            warnings.warn(f"the step runs without CUDA graphs, because capturing one failed: {error}", stacklevel=2)
            self.graphs = False
            return
        finally:
            _drop_workspaces()
        self._captured[key] = graph

    def captured(self, kind: str) -> list[Any]:
        """The graphs whose keys begin with `kind`."""
        return [graph for (name, _), graph in self._captured.items() if name == kind]

    def forget(self) -> None:
        """Let go of all graphs and the memory that they hold."""
        if self._captured:
            torch.cuda.synchronize(self.device)
        self._captured.clear()
        self._batches.clear()
        self._pool = None


def _drop_workspaces() -> None:
    """Free the scratch memory of cuBLAS (32 MiB a stream on a Hopper GPU), which it takes again when it needs it."""
    drop = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
    if drop is not None and torch.cuda.is_available():
        drop()
