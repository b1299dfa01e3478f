"""A canary for an API key, through a whole study against an endpoint that repeats it in replies and in errors."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

CANARY = "sk-canary-9b1e77c4d2"


@pytest.fixture(scope="module")
def loopback():
    path = Path(__file__).parents[1] / "loopback.py"
    spec = importlib.util.spec_from_file_location("loopback_secrets", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def leaky(loopback):
    """Every third answer is an error that repeats the key, as proxies and debugging servers do."""
    said = json.dumps({"error": {"message": f"Incorrect API key: {CANARY} (Authorization: Bearer {CANARY})"}}).encode()

    def fault(number, body):
        del body
        return loopback.Fault(status=500, body=said) if number % 3 == 0 else None

    return fault


def answer(body):
    texts = [message["content"] for message in body["messages"]]
    if "same | not the same" in texts[0]:
        return "same"
    return f"Please help: my token is {CANARY}."


def test_no_output_of_a_study_holds_the_key(loopback, write_study, tmp_path):
    with loopback.LoopbackServer(answer=answer, fault=leaky(loopback)) as server:
        path = write_study(tmp_path / "study.yaml", server.base_url)
        study = yaml.safe_load(path.read_text("utf-8"))
        study["variants"] = study["variants"][:2]
        study["methods"] = study["methods"][:1]
        study |= {"seeds": [0], "schedule": {**study["schedule"], "steps": 2}}
        path.write_text(yaml.safe_dump(study), "utf-8")
        store = tmp_path / "store"
        command = [
            sys.executable,
            "-m",
            "optaware",
            "run",
            str(path),
            "--store",
            str(store),
            "--executor",
            "in-process",
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPTAWARE_TEST_KEY": CANARY}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == 0, done.stderr
        assert any(CANARY in request["headers"]["authorization"] for request in server.requests)
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert {"report.html", "decisions.jsonl", "card.json", "env.json"} <= {file.name for file in files}
    assert any(file.name.startswith("segment-") for file in files)  # the replies' cache
    holding = [str(file) for file in files if CANARY.encode() in file.read_bytes()]
    assert holding == []
    assert CANARY not in done.stdout + done.stderr
    assert any(b"[redacted]" in file.read_bytes() for file in files)  # it was there to be taken out
