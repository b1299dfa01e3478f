"""Kernels that give the same bits each time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from optaware.errors import ModelError, Problem

__all__ = ["deterministic_kernels"]


@contextmanager
def deterministic_kernels(wanted: bool) -> Iterator[None]:
    """Within it, torch uses only kernels that give the same bits each time (`torch.use_deterministic_algorithms`).

    Without it CPUs already do; on GPUs some sums are added up in an order that changes (atomics), above all in backward
    passes. It costs time there, and memory for cuBLAS.

    Args:
        wanted: False: nothing is changed.

    Raises:
        ModelError: An operation of the model has no such kernel.
    """
    if not wanted:
        yield
        return
    # cuBLAS reads it when a process uses it for the first time; a value that the user has set is kept.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        if "deterministic" not in str(error):
            raise
        raise ModelError(
            Problem(
                "not-deterministic",
                "deterministic: true",
                str(error).split("\n")[0],
                "Set deterministic: false, or use another device or model; where cuBLAS is named, start the run in a "
                "process of its own.",
            )
        ) from error
    finally:
        torch.use_deterministic_algorithms(before)
