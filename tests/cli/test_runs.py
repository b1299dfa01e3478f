"""The runs browser on folders as a run leaves them, and what trackers are sent."""

import json
import sys
import types

import pytest

from optaware.cli._app import invoke
from optaware.cli._runs_track import follow, open_tracker, track
from optaware.errors import InputError
from optaware.records import DataRef, MeZO, ModelRef, RunSpec, RunStatus, short_id
from optaware.records.differences import differences
from optaware.store import RunFolder, Store


def _write(store, seed, lr, *, done=True, accuracy=0.5):
    spec = RunSpec(model=ModelRef(name="org/tiny"), data=DataRef(task="sst2"), method=MeZO(lr=lr), seed=seed)
    folder = store.run_folder(spec)
    folder.write_spec(spec)
    steps = [{"step": n, "loss": 1.0 / n, "lr": lr, "forwards": 2 * n, "step_s": 0.1, "metrics": {}} for n in (1, 2, 3)]
    folder.steps.write_text("".join(json.dumps(row) + "\n" for row in steps), "utf-8")
    folder.evals.write_text(
        json.dumps({"step": 3, "split": "dev", "loss": 0.4, "accuracy": 0.6, "n": 5}) + "\n", "utf-8"
    )
    state = "done" if done else "running"
    folder.write_status(RunStatus(state=state, step=3, steps=3))
    if done:
        result = {
            "run_id": short_id(spec),
            "outcome": "done",
            "test": {"accuracy": accuracy, "loss": 0.5, "n": 10},
            "dev": {"accuracy": 0.6, "loss": 0.4, "n": 5},
            "best_step": 3,
            "steps": 3,
            "forwards": 6,
            "skipped": 0,
            "train_s": 1.5,
            "eval_s": 0.1,
            "step_s_median": 0.1,
            "peak_memory_bytes": 1,
            "model_source": "x",
            "model_sha256": None,
            "data_source": {"kind": "local", "location": "x", "sha256": {}},
        }
        folder.result.write_text(json.dumps(result), "utf-8")
        folder.mark_done()
    return folder


@pytest.fixture
def store(tmp_path):
    place = Store(tmp_path / "results")
    _write(place, 0, 1e-6, accuracy=0.5)
    _write(place, 1, 1e-6, accuracy=0.9)
    _write(place, 0, 1e-5, done=False)
    return place


def _listed(capsys, store, *options):
    assert invoke(["runs", "list", "--store", str(store.root), "--json", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_list_filters_and_sorts(store, capsys):
    assert len(_listed(capsys, store)) == 3
    assert [row["test_accuracy"] for row in _listed(capsys, store, "--sort", "test_accuracy", "--limit", "2")] == [
        0.9,
        0.5,
    ]
    assert [row["state"] for row in _listed(capsys, store, "--state", "running")] == ["running"]
    assert len(_listed(capsys, store, "--seed", "1", "--task", "sst", "--method", "MEZO")) == 1
    assert _listed(capsys, store, "--model", "other") == []


def test_the_index_follows_the_folders(store, capsys):
    assert [row["state"] for row in store.index()].count("done") == 2
    _write(store, 7, 1e-6)
    running = next(row for row in store.index() if row["state"] == "running")
    RunFolder(store.root / "runs" / running["folder"]).write_status(RunStatus(state="failed", step=2, detail="gone"))
    assert sorted(row["state"] for row in store.index()) == ["done", "done", "done", "failed"]
    for path in (store.root / "runs" / running["folder"]).iterdir():
        path.unlink()
    (store.root / "runs" / running["folder"]).rmdir()
    assert len(store.index()) == 3
    (store.root / "index.sqlite").write_bytes(b"no database at all" * 100)
    assert len(store.index()) == 3


def test_diff_names_what_differs(store, capsys):
    left, right = (row["run"] for row in store.index() if row["state"] == "done")
    assert invoke(["runs", "diff", left, right, "--store", str(store.root), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row[0] for row in found["spec"]] == ["seed"]
    assert "test.accuracy" in [row[0] for row in found["result"]]
    assert differences({"a": {"b": 1}, "c": [1]}, {"a": {"b": 2}, "d": 3}) == [
        ("a.b", 1, 2),
        ("c", [1], None),
        ("d", None, 3),
    ]


def test_tail_prints_steps_and_evaluations(store, capsys):
    run = next(row["run"] for row in store.index() if row["state"] == "done")
    assert invoke(["runs", "tail", run, "--store", str(store.root), "--every", "2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:2]] == [["step", "2"], ["dev", "3"]]
    assert lines[-1].endswith("done")


def test_a_run_that_lost_bytes_says_so_and_nobody_waits_for_it(store, capsys):
    row = next(row for row in store.index() if row["state"] == "done")
    folder = RunFolder(store.root / "runs" / row["folder"])
    result = {**json.loads(folder.result.read_text()), "files": {"steps.jsonl": 10**6}}
    folder.result.write_text(json.dumps(result))
    for command in (("show", row["run"]), ("tail", row["run"], "--follow")):
        assert invoke(["runs", *command, "--store", str(store.root)]) == 0
        assert "steps.jsonl is not as long as it was" in capsys.readouterr().out


def test_following_sees_rows_that_come_later(store):
    folder = next(RunFolder(store.root / "runs" / row["folder"]) for row in store.index() if row["state"] == "running")
    rows = follow(folder, wait=True, poll_s=0.0)
    assert [next(rows)[1]["step"] for _ in range(4)] == [1, 2, 3, 3]
    with folder.steps.open("a", encoding="utf-8") as file:
        file.write('{"step": 4, "loss": 0.1}\n{"step": 5, "lo')
    assert next(rows)[1]["step"] == 4
    folder.write_status(RunStatus(state="stopped", step=4))
    assert list(rows) == []


class _Api(types.ModuleType):
    """Stands in for trackio, wandb or mlflow: notes what it is called with."""

    def __init__(self, name):
        super().__init__(name)
        self.calls = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self.calls.append((name, args, kwargs))


@pytest.mark.parametrize(
    ("name", "begins", "logs", "ends"),
    [
        ("trackio", "init", "log", "finish"),
        ("wandb", "init", "log", "finish"),
        ("mlflow", "set_experiment", "log_metrics", "end_run"),
    ],
)
def test_trackers_get_every_row_and_the_result(store, monkeypatch, tmp_path, name, begins, logs, ends):
    api = _Api(name)
    monkeypatch.setitem(sys.modules, name, api)
    folder = next(RunFolder(store.root / "runs" / row["folder"]) for row in store.index() if row["state"] == "done")
    sent = track(folder, open_tracker(name, "project", "run", {"seed": 0}, tmp_path))
    assert sent == 4
    called = [call[0] for call in api.calls]
    assert called[0] == begins
    assert called[-1] == ends
    logged = [call for call in api.calls if call[0] == logs]
    assert [call[2]["step"] for call in logged] == [1, 2, 3, 3, 3]
    assert logged[0][1][0]["train/loss"] == 1.0
    assert logged[-2][1][0]["dev/accuracy"] == 0.6
    assert logged[-1][1][0]["result/test_accuracy"] in (0.5, 0.9)


def test_a_tracker_that_is_not_installed_is_said_to_be(store, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(InputError, match="extra-missing"):
        open_tracker("wandb", "project", "run", {}, tmp_path)
