"""What the rounding of a step depends on, in words that a journal keeps."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["FUSED", "platform_of", "threads_of"]

FUSED = ", fused step"
"""What the platform of a journal ends with when its updates were made by the fused step."""


def platform_of(device: torch.device, learner: object = None) -> str:
    """What the rounding of a sum or product can depend on: processor, versions, and whether the step is fused."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    threads = "" if device.type == "cuda" else f", {torch.get_num_threads()} threads"
    fused = FUSED if getattr(learner, "fused", False) else ""
    return f"{device.type} {name}, torch {torch.__version__}{threads}{fused}"


@contextmanager
def threads_of(platform: str) -> Iterator[None]:
    """Inside, torch has as many threads as a platform tells of, so that sums are parted as they were there."""
    found = re.search(r", (\d{1,3}) threads$", platform)
    before = torch.get_num_threads()
    if found and int(found[1]):
        torch.set_num_threads(int(found[1]))
    try:
        yield
    finally:
        torch.set_num_threads(before)
