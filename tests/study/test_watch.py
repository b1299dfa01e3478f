"""A study is watched from its folder: what is seen at one look, and what changed between two."""

import io
import json

import pytest
import yaml
from rich.console import Console

from optaware._io import lock
from optaware.cli._app import invoke
from optaware.cli._runs_watch import changes, find_study, look, screen, summary
from optaware.errors import InputError
from optaware.execute import InProcess
from optaware.records import RunStatus, StudySpec
from optaware.store import Store
from optaware.study import plan_study, run_study


@pytest.fixture
def study(study_file, tmp_path):
    """A study of one grid of two points and two seeds, run to its end: its graph and its results folder."""
    data = yaml.safe_load(study_file.read_text("utf-8"))
    data |= {"variants": [{"name": "original"}], "methods": data["methods"][:1]}
    data["methods"][0]["grid"] = {"lr": [1e-3, 1e-4]}
    for role in ("rewriter", "judge"):
        del data[role]
    graph = plan_study(StudySpec.model_validate(data))
    store = Store(tmp_path / "store")
    run_study(graph, store, InProcess(invoke, lambda: False), report=False)
    return graph, store


def begin_again(folder, step):
    """Make a finished run look as it did after `step` steps, with an evaluation there."""
    folder.done.unlink()
    folder.result.unlink()
    steps = folder.steps.read_bytes().splitlines(keepends=True)[:step]
    folder.steps.write_bytes(b"".join(steps) + b'{"step": 99, "lo')  # a line that is being written
    folder.write_status(RunStatus(state="running", step=0, steps=6))


def test_the_runs_of_a_grid_are_counted_before_the_choice_is_made(study):
    _, store = study
    seen = look(store, find_study(store, None))
    assert seen.total == 1 + 2 + 2  # zero-shot, one try for each point, the chosen point with both seeds
    assert summary(seen).endswith("-tiny: 5 of 5 done")
    assert seen.is_over
    others = store.root / "runs" / "abcdefabcdef-of-another-study"
    others.mkdir()
    assert len(look(store, find_study(store, None)).runs) == 5
    assert len(look(store, None).runs) == 6


def test_what_is_under_way_is_seen_with_its_last_step_and_said_when_it_changes(study):
    graph, store = study
    place = find_study(store, "tiny")
    before = look(store, place)
    folder = store.run_folder(graph.choices[0].tries[0])
    begin_again(folder, 3)
    folder.evals.write_text("", "utf-8")
    begun = look(store, place)
    row = begun.runs[folder.run_id]
    assert (row["steps"], row["dev_accuracy"]) == (3, None)
    assert row["loss"] == json.loads(folder.steps.read_bytes().splitlines()[2])["loss"]
    assert not begun.is_over
    assert list(changes(before, begun)) == [f"running  {folder.path.name[13:]}  [{folder.run_id}]"]
    folder.evals.write_text(json.dumps({"step": 2, "split": "dev", "accuracy": 0.5, "loss": 1.0}) + "\n", "utf-8")
    scored = look(store, place)
    assert list(changes(begun, scored)) == [
        f"step 3/6  {folder.path.name[13:]}  [{folder.run_id}]  dev 50.00 %",
    ]
    assert list(changes(scored, look(store, place))) == []
    folder.write_status(RunStatus(state="failed", step=3, steps=6, detail="the disk is full"))
    failed = look(store, place)
    assert list(changes(scored, failed)) == [
        f"failed   {folder.path.name[13:]}  [{folder.run_id}]    the disk is full",
    ]
    assert summary(failed).endswith("4 of 5 done, 1 failed, no process runs it now")
    assert failed.is_over
    with lock(place / ".lock"):  # as a driver does that will begin the run again
        driven = look(store, place)
    assert summary(driven).endswith("4 of 5 done, 1 failed")
    assert not driven.is_over


def test_the_command_ends_when_nothing_is_left(study, capsys):
    _, store = study
    assert invoke(["runs", "watch", "--store", str(store.root)]) == 0
    assert capsys.readouterr().out.count("5 of 5 done") == 2
    assert invoke(["runs", "watch", "--once", "--store", str(store.root)]) == 0
    shown = capsys.readouterr().out
    assert "ended last" in shown
    assert "ticket_routing-original-mezo-s0" in shown


def test_a_screen_counts_what_it_has_no_place_for(study):
    _, store = study
    seen = look(store, find_study(store, None))
    many = {f"{n:012x}": {**next(iter(seen.runs.values())), "run": f"{n:012x}"} for n in range(40)}
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(screen(type(seen)(seen.title, many, 40, (0, 0))))
    assert "ended last (12 of 40)" in console.export_text()


def test_an_unknown_study_is_named_and_an_empty_folder_is_empty(study, tmp_path):
    _, store = study
    with pytest.raises(InputError, match=r"nowhere: there is no such study.*\[study-unknown\]"):
        find_study(store, "nowhere")
    assert find_study(Store(tmp_path / "empty"), None) is None
    assert summary(look(Store(tmp_path / "empty"), None)).endswith("empty: 0 done")
