"""Kernels that give the same bits each time: on for a run, off after it, and a plain error where there is none."""

from __future__ import annotations

import pytest
import torch

from optaware.errors import ModelError
from optaware.models import deterministic_kernels


def without_such_a_kernel() -> None:
    torch.zeros(3).put_(torch.tensor([0, 0]), torch.tensor([1.0, 2.0]))  # which of two values stays is not said


def test_they_are_used_within_and_not_after(monkeypatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with deterministic_kernels(True):
        assert torch.are_deterministic_algorithms_enabled()
    assert not torch.are_deterministic_algorithms_enabled()
    with deterministic_kernels(False):
        assert not torch.are_deterministic_algorithms_enabled()
        without_such_a_kernel()


def test_an_operation_without_such_a_kernel_is_named(monkeypatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with pytest.raises(ModelError, match=r"put_.*deterministic: false"), deterministic_kernels(True):
        without_such_a_kernel()
    assert not torch.are_deterministic_algorithms_enabled()


def test_other_errors_stay_as_they_are(monkeypatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    with pytest.raises(RuntimeError, match="size"), deterministic_kernels(True):
        torch.zeros(3) + torch.zeros(4)
