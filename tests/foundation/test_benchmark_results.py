"""Committed benchmark results all have the one form that `benchmarks/_result.py` writes."""

import json
from pathlib import Path

import pytest

RESULTS = sorted((Path(__file__).parents[2] / "benchmarks" / "results").glob("*.json"))


def test_there_are_results():
    assert RESULTS


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_result_says_how_it_was_got(path):
    result = json.loads(path.read_text("utf-8"))
    assert result.keys() >= {"benchmark", "device", "versions", "command", "settings", "notes", "rows"}
    assert path.stem.startswith(result["benchmark"])
    assert result["versions"]["torch"]
    assert result["command"].startswith("python benchmarks/")
    assert result["rows"]
    assert all({"case", "variant"} <= row.keys() for row in result["rows"])
