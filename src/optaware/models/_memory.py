"""How much memory a model takes, and whether an error says that there was not enough."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optaware.errors import MemoryUsedUp, OptawareError

__all__ = [
    "free_cached_memory",
    "held_memory_bytes",
    "is_out_of_memory",
    "memory_errors",
    "peak_memory_bytes",
]

_SAID = ("CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "mha_graph.execute")
"""How CUDA and libraries below PyTorch say that they could not allocate; PyTorch passes it on as another error.

The last one, of cuDNN's attention, gives no reason. It was seen on full cards only, and fewer rows are what helps."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a device has no memory left for what was tried."""
    import torch

    if isinstance(error, torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _SAID)


@contextmanager
def memory_errors(what: str) -> Iterator[None]:
    """Say that a device's memory is used up in the words of this library; for the outermost place that knows what ran.

    Raises:
        MemoryUsedUp: In place of an error of PyTorch or of a library below it (`is_out_of_memory`).
    """
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, OptawareError) or not is_out_of_memory(error):
            raise
        raise MemoryUsedUp.of(
            "memory-used-up",
            what,
            str(error).strip().splitlines()[0][:300],
            "Run fewer at once (--workers), end other programs on the device, or lower batch_size or max_length; the "
            "same command goes on.",
        ) from error


def free_cached_memory() -> None:
    """Give back what PyTorch's allocator keeps for later. After an error, call it outside of the handler: the
    traceback holds the tensors that are in the way."""
    import gc

    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def peak_memory_bytes(model: Any) -> int:
    """Peak memory of this process so far, in bytes: on the model's GPU where it is on one, else resident on the host.

    The peak is the process's: a process that did other work before counts that too. Workers do one job each.
    """
    import torch

    device = next(model.parameters()).device
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def held_memory_bytes(model: Any) -> int:
    """Memory held at this moment, in bytes: on the model's GPU where it is on one, else resident on the host.

    What training takes beyond it is `peak_memory_bytes` afterwards less this before. Where the system does not tell the
    resident size (no /proc), the peak so far stands in for it.
    """
    import torch

    device = next(model.parameters()).device
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    try:
        pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return peak_memory_bytes(model)
    return pages * resource.getpagesize()
