"""A whole study on Ray: one worker is killed in the middle, then the driver, and the same command finishes it."""

import json
import os
import signal
import time
from contextlib import suppress

import pytest
import yaml

from optaware.records import short_id
from optaware.store import Store
from optaware.study import load_study, plan_study

pytestmark = [pytest.mark.ray, pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module")
def long_study(tmp_path_factory, study_file):
    """Four runs with the tiny model, long enough to be met in the middle."""
    data = yaml.safe_load(study_file.read_text("utf-8"))
    data |= {
        "variants": [{"name": "original"}],
        "methods": [{"config": {"name": "mezo", "direction": "low-rank", "lr": 1.0e-3}}],
        "schedule": {"steps": 60, "batch_size": 4, "eval_every": 5, "max_length": 128},
        "zero_shot": False,
        "seeds": [0, 1, 2],
    }
    for role in ("rewriter", "judge"):
        del data[role]
    path = tmp_path_factory.mktemp("ray") / "study.yaml"
    path.write_text(yaml.safe_dump(data), "utf-8")
    return path


def test_a_study_on_ray_survives_the_death_of_a_worker_and_of_its_driver(long_study, tmp_path, optaware, interrupted):
    graph = plan_study(load_study(long_study))
    store = Store(tmp_path / "store")
    folders = [store.run_folder(run) for run in graph.runs]
    killed, seen = [], []

    def steps(folder):
        return folder.steps.read_text("utf-8").count("\n") if folder.steps.exists() else 0

    def kill_a_worker_then_the_driver():
        for folder in folders:
            if not killed and steps(folder) >= 7 and not folder.is_done:
                with suppress(OSError, ValueError):
                    os.kill(int((folder.path / "ray-worker.txt").read_text("utf-8")), signal.SIGKILL)
                    killed.append(folder)
        if killed and not seen and killed[0].is_done:
            seen.append(killed[0])  # another worker has finished it
        return bool(seen)

    command = ["run", long_study, "--store", store.root, "--executor", "ray", "--workers", "2"]
    interrupted(command, kill_a_worker_then_the_driver)
    assert killed
    assert seen
    _wait_until_orphans_are_gone(folders)
    done = {folder.run_id: folder.result.read_bytes() for folder in folders if folder.is_done}
    ended = optaware(*command)
    assert ended.returncode == 0, ended.stderr
    assert {folder.run_id for folder in folders if folder.is_done} == {short_id(run) for run in graph.runs}
    for folder in folders:  # nothing was done twice, nothing is missing
        assert done.get(folder.run_id, folder.result.read_bytes()) == folder.result.read_bytes()
        assert [row["step"] for row in map(json.loads, folder.steps.read_text("utf-8").splitlines())] == [*range(1, 61)]
        assert len(folder.evals.read_text("utf-8").splitlines()) == 12
    assert next(store.root.glob("studies/*/report.html")).exists()
    # The run whose worker died computes what one computes that nobody disturbed.
    apart = Store(tmp_path / "apart")
    quiet = optaware("train", killed[0].spec, "--store", apart.root, "--quiet")
    assert quiet.returncode == 0, quiet.stderr
    other = apart.run_folder(killed[0].read_spec())
    assert other.read_result().dev == killed[0].read_result().dev
    assert other.read_result().test == killed[0].read_result().test


def _wait_until_orphans_are_gone(folders):
    """Workers of a driver that is gone end by themselves; their locks go with them."""
    from optaware._io import lock

    for folder in folders:
        if folder.path.exists():
            for _ in range(600):
                with lock(folder.lock, wait=False) as free:
                    if free:
                        break
                time.sleep(0.1)
