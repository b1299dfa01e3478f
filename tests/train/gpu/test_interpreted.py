"""Where there is no GPU, the kernels run in Triton's interpreter, in a process that imports Triton that way."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

FILES = ("test_noise_fill.py", "test_fused_step.py", "test_fused_runs.py")


@pytest.mark.skipif(torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1", reason="runs by itself")
def test_the_fused_step_in_the_interpreter() -> None:
    files = [str(Path(__file__).with_name(name)) for name in FILES]
    chosen = (
        "options0 or (moves_along and gaussian) or (run_is and low) or fails_its or the_definition or config_places"
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-k", chosen, *files]
    done = subprocess.run(
        command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "[100%]" in done.stdout
