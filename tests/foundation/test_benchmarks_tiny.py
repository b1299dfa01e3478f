"""The benchmarks of step time and memory run at a tiny size and write the one form."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def test_step_time_of_a_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import step_time

    out = tmp_path / "step_time.json"
    chosen = ["two-forwards", "two-forwards-graphed", "original", "low-rank"]
    command = ["step_time.py", "--shape", "tiny", "--device", "cpu", "--lengths", "6", "--batch-size", "2"]
    monkeypatch.setattr(sys, "argv", [*command, "--rounds", "3", "--out", str(out), "--variants", *chosen])
    step_time.main()
    result = json.loads(out.read_text("utf-8"))
    assert result["benchmark"] == "step_time"
    assert [row["variant"] for row in result["rows"]] == chosen
    for row in result["rows"]:
        assert row["median_ms"] > 0
        assert row.keys() >= {"case", "ratio_to_original", "ratio_to_two_forwards", "engine"}
    assert result["rows"][3]["refresh_ms"] >= 0
    assert "2 x    6" in capsys.readouterr().out


def test_memory_of_a_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import memory

    found = memory.one("low-rank", "tiny", "cpu", 2, 6, 2)
    assert found["peak_memory_bytes"] > found["weights_bytes"] > 200_000
    options = Namespace(shape="tiny", batch_size=2, steps=2, out=tmp_path / "memory.json")
    base = {**found, "peak_memory_bytes": found["peak_memory_bytes"] // 2}
    row = memory._row("low-rank", 6, found, base, options)
    assert row["peak_ratio_to_inference"] == pytest.approx(2, abs=0.01)
    assert row["extra_memory_bytes"] == found["peak_memory_bytes"] - base["peak_memory_bytes"]
    whole = memory.one("train-low-rank-host", "tiny", "cpu", 2, 6, 2)
    assert whole["engine"].startswith(("fused", "not fused: "))
    memory._write([row], options)
    assert json.loads(options.out.read_text("utf-8"))["rows"][0]["engine"] == "modules"
