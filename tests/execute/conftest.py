import json
import sys

import pytest

from optaware._io import write_json
from optaware.cli._app import invoke
from optaware.execute import InProcess, Job, Ray, Slurm, Subprocess
from optaware.records import ManifestMetric, short_id
from optaware.records.plan_run import ScriptSpec
from optaware.store import Store


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


@pytest.fixture
def make_job(store):
    """A job that runs a few lines of Python as a stranger's script; its files are what every backend leaves."""

    def make(title, code, *, seed=0, **options):
        spec = ScriptSpec(
            name="probe",
            arm=title,
            command=(sys.executable, "-c", code),
            metrics={"accuracy": ManifestMetric(line="acc")},
            seed=seed,
            cwd=str(store.root.parent),
        )
        folder = store.script_folder(spec)
        write_json(folder / "spec.json", spec.to_json())
        return Job(
            key=short_id(spec),
            title=title,
            arguments=("plan", "script", str(folder / "spec.json"), "--store", str(store.root), "--quiet"),
            log=folder / "log.txt",
            **options,
        )

    return make


@pytest.fixture
def make_backend(tmp_path):
    """An executor by its name, with the question whether to stop."""

    def make(name, should_stop=lambda: False, **options):
        if name == "in-process":
            return InProcess(invoke, should_stop)
        if name == "subprocess":
            return Subprocess(2, should_stop, **options)
        if name == "ray":
            return Ray(2, should_stop, **options)
        return Slurm(2, should_stop, folder=tmp_path / "slurm", cluster="local", **options)

    return make


@pytest.fixture
def result_of(store):
    """What a job measured; None when it is not done."""

    def read(job):
        path = job.log.parent / "result.json"
        return json.loads(path.read_text("utf-8"))["metrics"]["accuracy"] if path.exists() else None

    return read
