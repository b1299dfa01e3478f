"""Proposing, binding and judging against a server that fails on purpose: nothing is lost, nothing paid twice."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from optaware.cli._app import invoke

PAPER = """# Loud Steps

## Abstract
We train with noise.

## Method
The scale of the noise is small.

## Experiments
It works.
"""
ENTRY = {
    "name": "Scale",
    "ablated_part": "how loud it is",
    "action": "REPLACE",
    "replacement": [1e-4],
    "metrics": ["accuracy"],
    "evidence": "The scale of the noise is small.",
}


@pytest.fixture
def loopback(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "canary-7f3a9c51e2")
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    if "loopback" not in sys.modules:
        spec = importlib.util.spec_from_file_location("loopback", Path(__file__).parents[1] / "loopback.py")
        sys.modules["loopback"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules["loopback"])
    return sys.modules["loopback"]


def answer(body):
    prompt = body["messages"][0]["content"]
    if "Two ablations" in prompt:
        return "same"
    if "Choose which component" in prompt:
        return "eps"
    return f"<discussion>\nwhy\n</discussion>\n<predictions>\n{json.dumps(ENTRY)}\n</predictions>"


def test_the_whole_flow_against_an_endpoint(loopback, tmp_path, capsys):
    paper, plan, out, store = (tmp_path / name for name in ("p.md", "plan.jsonl", "b.yaml", "store"))
    paper.write_text(PAPER)
    broken = [loopback.Fault(status=500), loopback.Fault(status=429, headers={"Retry-After": "0"})]
    with loopback.LoopbackServer(answer, lambda number, body: broken.pop(0) if broken else loopback.Fault()) as server:
        told = ["--base-url", server.base_url, "--store", str(store)]
        asked = ["plan", "propose", "--paper", str(paper), "--llm", "m", "--to", "jsonl", "-o", str(plan), *told]
        assert invoke(asked) == 0
        assert not broken
        count = server.count
        assert invoke(asked) == 0
        assert server.count == count
        assert "1 of them cached" in capsys.readouterr().err
        assert invoke(["plan", "bind", str(plan), "--method", "mezo", "--llm", "m", "-o", str(out), *told]) == 0
        assert "eps: 0.0001" in out.read_text()
        assert "by: chat" in out.read_text()
        assert invoke(["plan", "score", str(plan), "--reference", str(plan), "--judge", "m", *told]) == 0
        assert server.count == count + 2
    written = "".join(path.read_text("utf-8") for path in tmp_path.rglob("*") if path.is_file())
    assert "canary" not in written + "".join(capsys.readouterr())
