"""`optaware train` under torchrun: the run of one process, to the bit, whatever the number of processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from torch import nn

from optaware._io import read_yaml
from optaware.errors import InputError
from optaware.records import FOFull, RunSpec, parse_record
from optaware.store import Store
from optaware.study import train_one
from optaware.train import distributed
from optaware.train.firstorder import full

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", "TOKENIZERS_PARALLELISM": "false"}


@pytest.fixture
def spec(tmp_path, tiny_model_dir):
    path = tmp_path / "spec.yaml"
    run = {
        "model": {"name": str(tiny_model_dir), "dtype": "fp32"},
        "data": {
            "task": str(ROOT / "examples" / "tasks" / "ticket_routing.yaml"),
            "protocol": {"name": "free", "train": 12, "dev": 6, "test": 9},
        },
        "method": {"name": "fast", "lr": 1.0e-3, "queries": 3, "refresh_every": 3},
        "schedule": {"steps": 12, "batch_size": 4, "eval_every": 4, "max_length": 128},
        "seed": 2,
        "device": "cpu",
    }
    path.write_text(yaml.safe_dump(run), "utf-8")
    return path


def start(spec, store, processes):
    python = [sys.executable]
    python += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return subprocess.Popen(
        [*python, "-m", "optaware", "train", str(spec), "--store", str(store), "--json", "--quiet"],
        env={**os.environ, **ENVIRONMENT},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, errors = process.communicate()
    assert process.returncode == 0, errors[-3000:]
    return json.loads(out)


def alone(spec, store):
    """What one process does, here."""
    result = train_one(parse_record(RunSpec, read_yaml(spec), str(spec)), Store(store))
    return json.loads(result.model_dump_json())


def outcome(store):
    (folder,) = (store / "runs").iterdir()
    assert (folder / "DONE").exists()
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text("utf-8").splitlines()]
    return (
        (folder / "journal.bin").read_bytes(),
        (folder / "weights" / "model.safetensors").read_bytes(),
        (folder / "predictions.jsonl").read_bytes(),
        [(row["step"], row["loss"], row["coefficients"], row["forwards"]) for row in steps],
    )


def test_two_processes_make_the_run_of_one_also_when_stopped(spec, tmp_path):
    one = alone(spec, tmp_path / "one")
    stopped = start(spec, tmp_path / "two", 2)
    while stopped.poll() is None and not list((tmp_path / "two").glob("runs/*/checkpoint-last/state.json")):
        time.sleep(0.02)
    stopped.send_signal(signal.SIGTERM)
    stopped.communicate()
    shutil.copytree(tmp_path / "two", tmp_path / "changed")
    two = finish(start(spec, tmp_path / "two", 2))
    changed = alone(spec, tmp_path / "changed")  # goes on alone where two stopped
    assert outcome(tmp_path / "one") == outcome(tmp_path / "two") == outcome(tmp_path / "changed")
    for key in ("test", "dev", "best_step", "forwards"):
        assert one[key] == two[key] == changed[key]


def test_a_method_without_queries_is_refused(monkeypatch):
    monkeypatch.setattr(distributed, "Ranks", lambda: SimpleNamespace(size=2))
    learner = full(nn.Linear(2, 2), lambda batch: None, FOFull(), 0)
    with pytest.raises(InputError, match="method-not-shared"):
        distributed.share_queries(learner, {})
