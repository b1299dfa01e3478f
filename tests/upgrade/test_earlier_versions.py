"""Stores that earlier versions wrote: read as they are, gone on with under their names, or refused with the reason."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from optaware._io import dumps, read_json, read_yaml
from optaware.data import preview
from optaware.errors import InputError, IntegrityError
from optaware.llm import ReplyCache
from optaware.records import CorpusSpec, RunSpec, StudySpec, parse_record, short_id
from optaware.report import build_report, load_report_corpus, load_report_run
from optaware.store._index import refresh_index
from optaware.study import load_study, plan_study
from optaware.tasks import get_task
from optaware.train import read_journal, replay
from optaware.train._journal import Journal

HERE = Path(__file__).parent
FIXTURES = HERE / "fixtures"
VERSIONS = ("first", "journal2")
ROOT = HERE.parents[1]


@pytest.fixture(params=VERSIONS)
def old(request, tmp_path, monkeypatch):
    """A copy of a store with the tasks beside it, as the working folder."""
    shutil.copytree(FIXTURES / request.param, tmp_path, dirs_exist_ok=True)
    shutil.copytree(ROOT / "examples" / "tasks", tmp_path / "tasks")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def folders(old, kind):
    return sorted((old / "store" / kind).iterdir())


def test_runs_are_listed_and_read(old):
    rows = refresh_index(old / "store")
    assert [row["folder"] for row in rows] == [folder.name for folder in folders(old, "runs")]
    assert {row["state"] for row in rows} == {"done"}
    for folder in folders(old, "runs"):
        run = load_report_run(folder)
        assert run.state == "done"
        assert run.run_id == folder.name[:12]
        assert len(run.predictions()) == 9


def test_a_report_is_made_of_it(old):
    study = parse_record(StudySpec, read_json(next(iter(folders(old, "studies"))) / "study.json"), "study.json")
    runs = [load_report_run(folder) for folder in folders(old, "runs")]
    files = build_report(study, runs, [load_report_corpus(folder) for folder in folders(old, "corpora")], old / "out")
    page = files.html.read_text("utf-8")
    assert all(folder.name[:12] in page for folder in folders(old, "runs"))


def test_paid_replies_are_found_again(old):
    lines = (old / "store" / "chat-cache" / "segment-0000.jsonl").read_text("utf-8").splitlines()
    with ReplyCache(old / "store" / "chat-cache") as cache:
        assert len(cache) == len(lines) > 0
        for folder in folders(old, "corpora"):
            assert parse_record(CorpusSpec, read_json(folder / "spec.json"), "spec.json").rewriter.model == "scripted"
        assert all(cache.get(line.partition('"id": "')[2][:64]).text for line in lines)


def test_study_task_and_template_files_are_read(old):
    study = load_study(old / "study.yaml")
    assert study.name == "tiny"
    assert read_yaml(old / "study.yaml")["seeds"] == list(study.seeds)
    task = get_task("tasks/ticket_routing.yaml")
    row = task.example({"subject": "a", "body": "it broke", "queue": "billing", "ticket": 1}, "train", 0, "row")
    assert "it broke" in dumps(preview(task, [row], str(FIXTURES / "first" / "oat.jinja"), 1))


@pytest.mark.parametrize("old", ["journal2"], indirect=True)
def test_folders_of_this_fingerprint_version_keep_their_names_and_are_not_run_again(old):
    """Fields that came later stand at their old value, so the same study finds what it has."""
    for kind, record in (("runs", RunSpec), ("corpora", CorpusSpec), ("studies", StudySpec)):
        for folder in folders(old, kind):
            name = "study.json" if kind == "studies" else "spec.json"
            assert short_id(parse_record(record, read_json(folder / name), name)) == folder.name[:12]
    planned = {
        short_id(run) for run in plan_study(load_study(old / "study.yaml")).runs if run.data.variant == "original"
    }
    there = {folder.name[:12] for folder in folders(old, "runs") if "-original-" in folder.name}
    assert planned == there


@pytest.mark.parametrize("old", ["first"], indirect=True)
def test_folders_of_an_older_fingerprint_version_are_never_taken_for_new_ones(old):
    there = {folder.name[:12] for kind in ("runs", "corpora") for folder in folders(old, kind)}
    graph = plan_study(load_study(old / "study.yaml"))
    assert there.isdisjoint({short_id(spec) for spec in (*graph.runs, *graph.corpora)})


@pytest.mark.parametrize(("old", "version"), [("first", 1), ("journal2", 2)], indirect=["old"])
def test_journals_are_read(old, version):
    found = [read_journal(folder / "journal.bin") for folder in folders(old, "runs") if "mezo" in folder.name]
    assert len(found) == 2
    for header, steps in found:
        assert header.version == version
        assert len(steps) == 6
        assert header.config.name == "mezo"


@pytest.mark.parametrize("old", ["first"], indirect=True)
def test_a_journal_of_version_1_is_not_replayed_or_gone_on_with_and_says_why(old):
    path = next(folder for folder in folders(old, "runs") if "original-mezo" in folder.name) / "journal.bin"
    with pytest.raises(InputError, match="journal-old") as caught:
        replay(path, None, base=None)
    assert "Run the spec again" in str(caught.value)
    other = next((FIXTURES / "journal2" / "store" / "runs").glob("*original-mezo*")) / "journal.bin"
    before = path.read_bytes()
    with pytest.raises(IntegrityError, match="version 1, this run writes version 2"):
        Journal(path, read_journal(other)[0], 3)
    assert path.read_bytes() == before


@pytest.mark.parametrize("old", ["journal2"], indirect=True)
def test_a_journal_of_version_2_is_replayed_to_weights(old, tiny_model_dir):
    from optaware.models import load_model
    from optaware.records import ModelRef

    path = next(folder for folder in folders(old, "runs") if "original-mezo" in folder.name) / "journal.bin"
    model = load_model(ModelRef(name=str(tiny_model_dir), dtype="fp32")).model
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    replay(path, model, base=None)
    assert any(not before[name].equal(weight) for name, weight in model.named_parameters())


@pytest.mark.parametrize("change", [{"version": 9}, {"a_field_of_tomorrow": 1}])
def test_what_a_later_version_wrote_is_refused_by_name(old, change):
    spec = read_json(next(iter(folders(old, "runs"))) / "spec.json") | change
    with pytest.raises(InputError, match=next(iter(change))):
        parse_record(RunSpec, spec, "spec.json")
