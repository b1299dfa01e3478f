"""Corpora made on one machine serve the runs of another that has no rewriter; the short scale of the paper's study."""

import contextlib
import io
import json
import os
import shutil
from pathlib import Path

import pytest
import yaml

from optaware.cli._app import invoke
from optaware.records import ZeroShot, short_id
from optaware.store import Store
from optaware.study import cost_of_study, load_study, plan_study

ROOT = Path(__file__).parents[2]
DATA = os.environ.get("OPTAWARE_DATA_DIR")


def machine(folder, write_study, base_url, model):
    """A folder with the study and its task, at paths that are relative to it."""
    shutil.copytree(ROOT / "examples" / "tasks", folder / "tasks")
    path = write_study(folder / "study.yaml", base_url)
    data = yaml.safe_load(path.read_text("utf-8"))
    data |= {"tasks": ["tasks/ticket_routing.yaml"], "models": [{"name": model, "dtype": "fp32"}], "seeds": [0]}
    data["methods"] = data["methods"][:1]
    path.write_text(yaml.safe_dump(data), "utf-8")
    return folder


def run(place, *arguments):
    """The command line with its working directory there: exit code and what it said."""
    said = io.StringIO()
    with contextlib.chdir(place), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = invoke(["run", "study.yaml", "--store", "store", "--executor", "in-process", *arguments])
    return code, said.getvalue()


@pytest.fixture(scope="module")
def carried(tmp_path_factory, write_study, tiny_model_dir, make_endpoint):
    """Machine A makes the corpora (it has not the model that is trained), machine B trains; the endpoint is gone."""
    with make_endpoint() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPTAWARE_TEST_KEY", "canary-4f1d")
        base_url = server.base_url
        a = machine(tmp_path_factory.mktemp("a"), write_study, base_url, "somebody/Not-Here-135M")
        made = run(a, "--corpora-only")
        asked = server.count
        again = run(a, "--corpora-only", "--json")
        assert server.count == asked > 0
    b = machine(tmp_path_factory.mktemp("b"), write_study, base_url, str(tiny_model_dir))
    shutil.copytree(a / "store" / "corpora", b / "store" / "corpora")
    return a, b, made, again, run(b)


def test_corpora_alone_are_made_and_their_folders_named(carried):
    a, _, made, again, _ = carried
    assert made[0] == again[0] == 0, made
    assert "2 of 2 corpora are finished" in made[1]
    said = json.loads(again[1])
    assert sorted(Path(path).name for path in said["corpora"]) == sorted(
        each.name for each in (a / "store" / "corpora").iterdir() if each.is_dir()
    )
    assert not list((a / "store").glob("runs/*"))


def test_runs_elsewhere_use_them_and_ask_no_rewriter(carried):
    a, b, _, _, trained = carried
    assert trained[0] == 0, trained[1]
    specs = [json.loads(path.read_text()) for path in (b / "store" / "runs").glob("*/spec.json")]
    assert len(specs) == len(list((b / "store" / "runs").glob("*/DONE"))) == 4
    used = {spec["data"]["corpus_id"] for spec in specs} - {None}
    assert used == {path.name[:12] for path in (a / "store" / "corpora").iterdir()}
    assert not (b / "store" / "chat-cache").exists()
    html = next((b / "store").glob("studies/*/report.html")).read_text("utf-8")
    assert all(key in html for key in used)


def test_a_copy_that_was_cut_short_is_refused(carried, tmp_path):
    _, b, _, _, _ = carried
    other = tmp_path / "c"
    shutil.copytree(b, other)
    torn = next((other / "store" / "corpora").iterdir())
    (torn / "train.jsonl").write_bytes((torn / "train.jsonl").read_bytes()[:-40])
    for spec in (other / "store" / "runs").glob("*/spec.json"):
        if torn.name[:12] in spec.read_text("utf-8"):
            shutil.rmtree(spec.parent)
    code, said = run(other)
    assert code == 1
    assert "corpus-changed" in said
    assert len(list(other.glob("store/runs/*/DONE"))) == 3


@pytest.fixture(scope="module")
def short():
    """The short scale of the paper's study, planned."""
    if DATA is None:
        pytest.skip("needs the full data sets (OPTAWARE_DATA_DIR)")
    return plan_study(load_study(ROOT / "studies" / "oat_table2.yaml", "short"), data_dir=Path(DATA))


def test_the_short_scale_gives_every_method_as_many_forward_passes(short, tmp_path):
    cost = cost_of_study(short, Store(tmp_path), data_dir=Path(DATA))
    trained = [row for row in cost.rows if row.method != "zero-shot"]
    assert len(trained) == 6 * 3
    assert {row.forwards / row.runs for row in trained} == {360.0}
    assert 80_000 <= sum(row.forwards for row in trained) <= 100_000
    assert len(short.corpora) == 6 * 2
    assert all(isinstance(run.method, ZeroShot) for run in short.runs)
    assert len(short.choices) == 6 * 3 * 3


def test_pairs_of_the_short_scale_differ_in_their_rows_alone(short):
    corpora = {short_id(spec): spec for spec in short.corpora}
    assert len({(spec.task, spec.variant) for spec in corpora.values()}) == 12
    by_arm = {}
    for choice in short.choices:
        for option in choice.options:
            assert [run.seed for run in option.finals] == [0, 1, 2]
            assert [(run.seed, run.score_test) for run in option.tries] == [(0, False)]
            for run in option.finals:
                if run.corpus_id is not None:
                    assert corpora[run.corpus_id].task == run.rows.task
                    assert corpora[run.corpus_id].variant == choice.variant
                same = run.to_json()
                same["data"] |= {"variant": None, "corpus_id": None}
                by_arm.setdefault((choice.task, choice.method, option.words, run.seed), []).append(same)
    assert all(len(runs) == 3 and runs[0] == runs[1] == runs[2] for runs in by_arm.values())
    assert len(by_arm) == 6 * 3 * 2 * 3
