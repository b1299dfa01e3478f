"""Methods that bring their own kind of data run through the same command, store and markers as every other run."""

import sys
import types

import pytest

from optaware.errors import InputError, StoppedBySignal
from optaware.records import DataRef, DataSource, Episodes, MeZO, ModelRef, RunResult, RunSpec, Score, parse_record
from optaware.store import Store
from optaware.study import train_one
from optaware.train import methods


@pytest.fixture
def own_method(monkeypatch):
    """A method of its own under the name `mezo`; returns the list of its calls. The first call is stopped."""
    calls = []

    def run(spec, folder, *, data_dir, on_event, should_stop):
        calls.append((spec, folder, data_dir))
        on_event("an event")
        if len(calls) == 1:
            raise StoppedBySignal.of("stopped", "a run", "it was told to stop", "Run it again.")
        return RunResult(
            run_id=folder.run_id,
            outcome="done",
            test=Score(accuracy=0.5, loss=1.0, n=2),
            dev=None,
            best_step=3,
            steps=3,
            forwards=9,
            skipped=0,
            train_s=0.0,
            eval_s=0.0,
            step_s_median=None,
            peak_memory_bytes=0,
            model_source="built here",
            model_sha256=None,
            data_source=DataSource(kind="local", location="toy", sha256={"toy": "0" * 64}),
            metrics={"GCI": 1.5},
        )

    module = types.ModuleType("optaware.train.methods.toy")
    module.run = run
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(methods.HOMES, "mezo", "toy")
    return calls


def test_a_registered_method_runs_resumes_and_is_done_as_every_run(own_method, tmp_path):
    spec = RunSpec(model=ModelRef(name="none"), data=DataRef(task="toy"), method=MeZO())
    store = Store(tmp_path)
    events = []
    with pytest.raises(StoppedBySignal):
        train_one(spec, store, on_event=events.append)
    folder = store.run_folder(spec)
    assert folder.read_status().state == "stopped"
    assert not folder.is_done
    result = train_one(spec, store, data_dir=tmp_path, on_event=events.append)
    assert folder.is_done
    assert folder.read_status().state == "done"
    assert folder.read_result() == result
    assert result.metrics == {"GCI": 1.5}
    assert train_one(spec, store) == result
    assert len(own_method) == 2
    assert own_method[1][2] == tmp_path
    assert events == ["an event", "an event"]
    assert folder.env.exists()


def test_data_without_a_kind_are_rows_of_a_task():
    data = {"model": {"name": "m"}, "data": {"task": "copa"}, "method": {"name": "mezo"}}
    spec = parse_record(RunSpec, data, "x")
    assert spec.rows == DataRef(task="copa")
    assert parse_record(RunSpec, spec.to_json(), "x") == spec


def test_a_method_turns_down_data_of_another_kind():
    with pytest.raises(InputError, match="mezo learns from data of kind task, not of kind episodes"):
        parse_record(
            RunSpec,
            {"model": {"name": "m"}, "data": Episodes().to_json(), "method": {"name": "mezo"}},
            "x",
        )


def test_an_unknown_kind_of_data_is_said():
    with pytest.raises(InputError, match="kind"):
        parse_record(RunSpec, {"model": {"name": "m"}, "data": {"kind": "sound"}, "method": {"name": "mezo"}}, "x")
