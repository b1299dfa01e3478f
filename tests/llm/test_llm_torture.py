"""The campaign of benchmarks/torture/endpoint.py in its short form: all accounts, no figures of speed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "torture" / "endpoint.py"


@pytest.fixture
def endpoint(monkeypatch):
    monkeypatch.setenv("OPTAWARE_TORTURE_KEY", "")
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("torture_endpoint", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_row_is_accounted_for_and_no_budget_is_overrun(endpoint):
    rows = endpoint.campaign(240, seed=1, timeout_s=0.5, blocks=1)
    accounts = [row for row in rows if row["case"] == "rows"]
    assert len(accounts) == 3
    for row in accounts:
        assert row["rows"] > 40
        assert [row[name] for name in ("lost", "unasked", "answered_twice", "wrong")] == [0, 0, 0, 0]
    again = accounts[2]
    assert (again["errors"], again["asked_without_need"]) == (0, 0)
    (budget,) = (row for row in rows if row["case"] == "budget")
    assert budget["stopped"] == 1
    assert budget["most_tokens_over"] <= budget["in_flight_tokens"]
    kinds = {row["variant"] for row in rows if row["case"] == "fault"}
    assert len(kinds) >= 8  # of 13, by chance
