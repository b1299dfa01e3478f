"""The whole job on the tiny model with a loopback endpoint: run, resume, kill, stop, report."""

import csv
import json
import shutil
import signal
import socket

import pytest

TIMES = ("_s", "memory", "wall", "updated", "pid")


def _files(store):
    """Everything that decides the results, by path within the store."""
    kept = ("predictions.jsonl", "decisions.jsonl", "train.jsonl", "eval.jsonl", "steps.jsonl")
    found = {}
    for path in sorted(store.rglob("*.jsonl")):
        if path.name in kept:
            rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            for row in rows:
                for key in [key for key in row if key.endswith("_s")]:
                    del row[key]
            found[str(path.relative_to(store))] = rows
    return found


def _table(store):
    (path,) = store.glob("studies/*/runs.csv")
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [{key: value for key, value in row.items() if not any(part in key for part in TIMES)} for row in rows]


IN_PROCESS = ("--executor", "in-process")
"""One process imports torch once, which is most of the time that these tests take."""


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory, study_file, optaware, endpoint):
    """The store of a run that nothing disturbed, and how many replies it paid for."""
    store = tmp_path_factory.mktemp("undisturbed")
    before = endpoint.answered
    done = optaware("run", study_file, "--store", store, *IN_PROCESS)
    assert done.returncode == 0, done.stderr
    return store, endpoint.answered - before


def test_the_whole_job_then_nothing_left_to_do(undisturbed, study_file, optaware, endpoint):
    store, paid = undisturbed
    assert paid
    (report,) = store.glob("studies/*/report.html")
    page = report.read_text("utf-8")
    assert "tiny" in page
    runs = list(store.glob("runs/*"))
    assert len(runs) == 1 + 2 * 3 + 2  # zero-shot, MeZO on three variants, LoRA on the original rows; two seeds each
    for run in runs:
        assert {path.name for path in run.iterdir()} >= {
            "spec.json",
            "resolved.json",
            "env.json",
            "status.json",
            "predictions.jsonl",
            "result.json",
            "DONE",
        }
        assert run.name[:12] in page
    for card_path in store.glob("corpora/*/card.json"):
        card = json.loads(card_path.read_text("utf-8"))
        assert card["accepted"] + card["rejected"] + card["failed"] == card["rows"] == 12
        assert card["failed"] == 0
    asked, before = endpoint.count, _files(store)
    again = optaware("run", study_file, "--store", store, "--json")
    assert again.returncode == 0, again.stderr
    assert endpoint.count == asked
    assert _files(store) == before
    assert json.loads(again.stdout)["report"] == str(report)


def test_the_key_is_nowhere_on_disk(undisturbed):
    for path in undisturbed[0].rglob("*"):
        if path.is_file():
            assert b"canary-4f1d" not in path.read_bytes(), path


@pytest.mark.parametrize(
    "moment",
    [
        "runs/*/steps.jsonl",
        "corpora/*/candidates.jsonl",
        "corpora/*/verdicts.jsonl",
        "runs/*-oat-*/eval.jsonl",
        "studies/*/report.html",
    ],
)
def test_a_kill_at_any_stage_changes_nothing(
    moment, tmp_path, undisturbed, study_file, optaware, interrupted, endpoint
):
    before = endpoint.answered
    store = tmp_path / "killed"
    interrupted(["run", study_file, "--store", store, *IN_PROCESS], when=lambda: any(store.glob(moment)))
    done = optaware("run", study_file, "--store", store, *IN_PROCESS)
    assert done.returncode == 0, done.stderr
    assert _files(store) == _files(undisturbed[0])
    assert _table(store) == _table(undisturbed[0])
    # A reply on its way when the process died was not received: only those in flight may be asked for again.
    assert endpoint.answered - before <= undisturbed[1] + 8


def test_ctrl_c_stops_workers_in_order_and_the_same_command_goes_on(
    tmp_path, undisturbed, study_file, optaware, interrupted
):
    store = tmp_path / "stopped"
    code = interrupted(
        ["run", study_file, "--store", store],
        when=lambda: any(store.glob("runs/*/steps.jsonl")),
        number=signal.SIGINT,
    )
    assert code == 3
    done = optaware("run", study_file, "--store", store)
    assert done.returncode == 0, done.stderr
    assert _files(store) == _files(undisturbed[0])


def test_a_dry_run_shows_everything_and_does_nothing(tmp_path, study_file, optaware, endpoint):
    store, asked = tmp_path / "dry", endpoint.count
    shown = optaware("run", study_file, "--store", store, "--dry-run", "--json")
    assert shown.returncode == 0, shown.stderr
    rows = json.loads(shown.stdout)["jobs"]
    assert sum(row["kind"] == "run" for row in rows) == 9
    assert sum(row["kind"] == "corpus" for row in rows) == 2
    assert not any(row["done"] for row in rows)
    assert not store.exists()
    assert endpoint.count == asked


def test_an_endpoint_that_is_down_loses_nothing_else(tmp_path, write_study, optaware):
    store = tmp_path / "down"
    with socket.socket() as taken:  # a port that nobody listens on
        taken.bind(("127.0.0.1", 0))
        base_url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        study = write_study(tmp_path / "study.yaml", base_url)
        ended = optaware("run", study, "--store", store, *IN_PROCESS)
    assert ended.returncode == 1
    assert "failed" in ended.stderr
    assert len(list(store.glob("runs/*/DONE"))) == 5  # everything on the original rows
    assert list(store.glob("studies/*/report.html"))


def test_a_finished_run_that_lost_bytes_is_made_again_by_the_same_command(
    undisturbed, study_file, optaware, endpoint, tmp_path
):
    store = tmp_path / "store"
    shutil.copytree(undisturbed[0], store)
    before, table, asked = _files(store), _table(store), endpoint.count
    for name in ("steps.jsonl", "predictions.jsonl"):
        path = sorted(store.glob(f"runs/*mezo*/{name}"))[0]
        path.write_bytes(path.read_bytes()[:-20])
    done = optaware("run", study_file, "--store", store, *IN_PROCESS)
    assert done.returncode == 0, done.stderr
    assert _files(store) == before
    assert _table(store) == table
    assert endpoint.count == asked
