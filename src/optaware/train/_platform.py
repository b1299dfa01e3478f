"""What the rounding of a step depends on, in words that a journal keeps."""

from __future__ import annotations

import torch

__all__ = ["FUSED", "platform_of"]

FUSED = ", fused step"
"""What the platform of a journal ends with when its updates were made by the fused step."""


def platform_of(device: torch.device, learner: object = None) -> str:
    """What the rounding of a sum or product can depend on: processor, versions, and whether the step is fused."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    threads = "" if device.type == "cuda" else f", {torch.get_num_threads()} threads"
    fused = FUSED if getattr(learner, "fused", False) else ""
    return f"{device.type} {name}, torch {torch.__version__}{threads}{fused}"
