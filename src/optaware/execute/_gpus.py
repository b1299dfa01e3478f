from __future__ import annotations

import os
import subprocess

__all__ = ["visible_gpus"]


def visible_gpus() -> tuple[str, ...]:
    """The GPUs that this process sees, as `CUDA_VISIBLE_DEVICES` names them: that variable's, else all of the machine.

    Asks `nvidia-smi`, so that no CUDA context and no torch is needed; empty where there is none.
    """
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is None:
        command = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        try:
            told = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
        except (OSError, subprocess.SubprocessError):
            return ()
    found: list[str] = []
    for name in told.replace("\n", ",").split(","):
        if name.strip() == "-1":  # CUDA itself reads no further
            break
        if name.strip():
            found.append(name.strip())
    return tuple(found)
