import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from optaware.records import StudySpec
from optaware.study import plan_study

ROOT = Path(__file__).parents[2]


def _load_loopback():
    spec = importlib.util.spec_from_file_location("loopback_study", ROOT / "tests" / "loopback.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def scripted_answer(body):
    """A rewriter that adds two words and a judge that turns down every rewrite that mentions an invoice."""
    texts = [message["content"] for message in body["messages"]]
    last = texts[-1].strip().splitlines()[-1].partition(": ")[2]
    last = json.loads(last) if last.startswith('"') else last
    if "same | not the same" in texts[0]:
        return "not the same" if "invoice" in last.lower() else "same"
    return f"{last} Please help."


@pytest.fixture(scope="session")
def make_endpoint():
    """Make a loopback chat endpoint of one's own, which can be shut down."""
    return lambda: _load_loopback().LoopbackServer(answer=scripted_answer)


@pytest.fixture(scope="session")
def endpoint():
    """A loopback chat endpoint that answers as `scripted_answer` says."""
    with _load_loopback().LoopbackServer(answer=scripted_answer) as server:
        yield server


@pytest.fixture(scope="session")
def write_study(tiny_model_dir):
    """Write a small study over the example task, with the tiny model and an endpoint."""
    return lambda path, base_url: _write_study(path, tiny_model_dir, base_url)


def _write_study(path, model, base_url):
    chat = {"provider": "openai", "model": "scripted", "base_url": base_url, "api_key_env": "OPTAWARE_TEST_KEY"}
    study = {
        "name": "tiny",
        "models": [{"name": str(model), "dtype": "fp32"}],
        "tasks": [str(ROOT / "examples" / "tasks" / "ticket_routing.yaml")],
        "protocol": {"name": "free", "train": 12, "dev": 6, "test": 9},
        "variants": [
            {"name": "original"},
            {"name": "paraphrase", "template": "paraphrase"},
            {"name": "oat", "template": "oat"},
        ],
        "methods": [
            {"config": {"name": "mezo", "direction": "low-rank", "lr": 1.0e-3, "refresh_every": 3}},
            {"config": {"name": "fo-lora", "lr": 1.0e-3, "rank": 2}, "variants": ["original"]},
        ],
        "schedule": {"steps": 6, "batch_size": 4, "eval_every": 2, "max_length": 128},
        "seeds": [0, 1],
        "rewriter": {**chat, "max_tokens": 64},
        "judge": {**chat, "max_tokens": 8},
        "workers": 2,
    }
    path.write_text(yaml.safe_dump(study), "utf-8")
    return path


@pytest.fixture(scope="session")
def study_file(tmp_path_factory, write_study, endpoint):
    """The small study as a file."""
    return write_study(tmp_path_factory.mktemp("study") / "study.yaml", endpoint.base_url)


def _environment():
    """What the command line is run with: one thread, a key for the endpoint."""
    return {**os.environ, "OMP_NUM_THREADS": "1", "OPTAWARE_TEST_KEY": "canary-4f1d"}


@pytest.fixture(scope="session")
def optaware():
    """Run the command line in a process of its own; returns the finished process."""

    def call(*arguments):
        command = [sys.executable, "-m", "optaware", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, env=_environment(), check=False)

    return call


@pytest.fixture
def interrupted():
    """Start the command line and send it a signal as soon as `when()` holds; returns its exit code."""

    def call(arguments, when, number=signal.SIGKILL):
        command = [sys.executable, "-m", "optaware", *map(str, arguments)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=_environment())
        while process.poll() is None and not when():
            time.sleep(0.01)
        if process.poll() is None:
            process.send_signal(number)
        return process.wait()

    return call


@pytest.fixture
def graph(study_file):
    """One seed of MeZO and of LoRA on the original rows, batches of four."""
    data = yaml.safe_load(study_file.read_text("utf-8"))
    data |= {"variants": [{"name": "original"}], "seeds": [0], "zero_shot": False}
    for role in ("rewriter", "judge"):
        del data[role]
    return plan_study(StudySpec.model_validate(data))
