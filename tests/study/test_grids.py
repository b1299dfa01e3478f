"""Grids: chosen on dev rows alone, test rows looked at once; memory and cost are settled before anything runs."""

import csv
import json
import shutil

import pytest
import yaml

from optaware.errors import InputError
from optaware.execute import Outcome
from optaware.records import FOLoRA, MeZO, ModelRef, Schedule, grid_points, short_id
from optaware.store import Store
from optaware.study import check_budget, choose, cost_of_study, load_study, plan_study, report_study, run_study

IN_PROCESS = ("--executor", "in-process")


@pytest.fixture(scope="module")
def grid_study(tmp_path_factory, study_file):
    """The small study with a grid for MeZO on the original rows and no rewriting."""
    data = yaml.safe_load(study_file.read_text("utf-8"))
    data["variants"] = [{"name": "original"}]
    data["methods"] = [
        {
            "label": "ZO",
            "config": {"name": "mezo", "direction": "low-rank", "lr": 1.0e-3, "refresh_every": 3},
            "grid": {"lr": [1.0e-3, 1.0e-4], "batch_size": [4, 2]},
        }
    ]
    for role in ("rewriter", "judge"):
        del data[role]
    path = tmp_path_factory.mktemp("grid") / "grid.yaml"
    path.write_text(yaml.safe_dump(data), "utf-8")
    return path


@pytest.fixture(scope="module")
def done(tmp_path_factory, grid_study, optaware):
    store = tmp_path_factory.mktemp("grid-store")
    ended = optaware("run", grid_study, "--store", store, *IN_PROCESS)
    assert ended.returncode == 0, ended.stderr
    return store, plan_study(load_study(grid_study))


def test_the_batch_size_axis_keeps_the_rows_that_are_processed():
    schedule = Schedule(steps=101, batch_size=16, eval_every=25, accumulation=4)
    points = grid_points(MeZO(), schedule, {"lr": (1e-6, 1e-7), "batch_size": (16, 2)})
    assert [point.words for point in points] == [
        "lr 1e-06, batch_size 16",
        "lr 1e-06, batch_size 2",
        "lr 1e-07, batch_size 16",
        "lr 1e-07, batch_size 2",
    ]
    assert points[0].schedule == schedule
    small = points[1].schedule
    assert (small.steps, small.batch_size, small.eval_every, small.accumulation) == (808, 2, 200, 1)
    with pytest.raises(ValueError, match="rank"):
        grid_points(FOLoRA(), schedule, {"ranks": (8,)})


def test_runs_that_choose_never_see_a_test_row(done):
    store, graph = done
    (choice,) = graph.choices
    tries = {short_id(run) for run in choice.tries}
    assert len(tries) == 4
    for path in (store / "runs").iterdir():
        result = json.loads((path / "result.json").read_text("utf-8"))
        trying = path.name[:12] in tries
        assert (result["test"] is None) == trying
        assert (path / "predictions.jsonl").exists() != trying


def test_the_point_with_the_best_dev_accuracy_is_used_with_all_seeds(done):
    store, graph = done
    (choice,) = graph.choices
    chosen = choose(choice, Store(store))
    ranked = sorted(range(4), key=lambda index: (-chosen.scores[index][1], chosen.scores[index][2], index))
    assert chosen.option is choice.options[ranked[0]]
    assert [run.seed for run in chosen.option.finals] == [0, 1]
    kept = {path.name[:12] for path in (store / "runs").iterdir()}
    assert kept == {short_id(run) for run in [*graph.runs, *choice.tries, *chosen.option.finals]}
    (written,) = json.loads(next(store.glob("studies/*/choices.json")).read_text("utf-8"))
    assert written["chosen"] == chosen.option.words
    # The final run of the seed that chose is the same training: same dev score, and now a test score.
    for run in chosen.option.finals[:1]:
        result = Store(store).run_folder(run).read_result()
        assert result.dev.accuracy == pytest.approx(chosen.scores[ranked[0]][1])
    page = next(store.glob("studies/*/report.md")).read_text("utf-8")
    assert all(short_id(run) in page for run in chosen.option.finals)


def test_a_point_that_failed_cannot_be_chosen(done):
    store, graph = done
    (choice,) = graph.choices
    best = choose(choice, Store(store)).option
    elsewhere = Store(store / "nowhere")
    assert choose(choice, elsewhere).option is None
    assert not choose(choice, elsewhere).complete
    assert choose(choice, elsewhere, frozenset(short_id(run) for run in choice.tries)).complete
    status = Store(store).run_folder(best.tries[0])
    status.done.unlink()
    try:
        other = choose(choice, Store(store), frozenset({short_id(best.tries[0])}))
    finally:
        status.mark_done()
    assert other.option not in (None, best)
    assert [state for state, _, _ in other.scores].count("failed") == 1


def test_runs_chosen_beside_a_killed_try_are_in_the_report(done, tmp_path):
    """A worker that is killed leaves no word of its failure in its folder; `choices.json` has it."""
    store, graph = done
    shutil.copytree(store, tmp_path / "store")
    copy, (choice,) = Store(tmp_path / "store"), graph.choices
    chosen = choose(choice, copy).option
    killed = next(option for option in choice.options if option is not chosen).tries[0]
    copy.run_folder(killed).done.unlink()

    class Killing:
        def run(self, jobs, on_event):
            return [Outcome(job.key, "failed", "killed by SIGKILL") for job in jobs]

    folder = copy.study_folder(graph.study)
    for build in (lambda: run_study(graph, copy, Killing()), lambda: report_study(graph, copy)):
        (folder / "report.html").unlink(missing_ok=True)
        build()
        with (folder / "runs.csv").open(encoding="utf-8") as file:
            states = {row["run_id"]: row["state"] for row in csv.DictReader(file)}
        assert [states.get(short_id(run)) for run in chosen.finals] == ["done"] * len(chosen.finals)


def test_a_dry_run_tells_the_cost_and_what_is_left(done, grid_study, optaware, tmp_path):
    store, graph = done
    fresh = cost_of_study(graph, Store(tmp_path / "empty"), usd_per_hour=2.0)
    assert sum(row.runs for row in fresh.rows) == 1 + 4 + 2
    zo = next(row for row in fresh.rows if row.method == "ZO")
    # Four runs to choose by, of 6 steps or of 12 with half the batch, and two finals of 6; a step has two forwards.
    assert zo.forwards == 2 * (6 + 6 + 12 + 12 + 2 * 6)
    assert fresh.hours > 7 * 8 / 3600  # each process takes seconds to start, however short the run
    assert fresh.usd == pytest.approx(2 * fresh.hours)
    assert all(row.memory_bytes > 0 for row in fresh.rows)
    shown = optaware("run", grid_study, "--store", store, "--dry-run", "--json")
    cost = json.loads(shown.stdout)["cost"]
    assert cost["left"] == 0
    assert cost["hours"] == 0
    assert {row["how"] for row in cost["rows"]} == {"measured"}
    told = optaware("run", grid_study, "--store", tmp_path / "empty", "--dry-run", "--tflops", "7").stdout
    assert "Assumed hours: operations at 7 TFLOP/s" in told
    tries = [line for line in told.splitlines() if line.startswith("choosing")]
    assert len({line.split("\t")[2] for line in tries}) == len(tries) == 4  # told apart by their point


def test_a_study_over_its_budget_does_not_begin(grid_study, tmp_path):
    study = load_study(grid_study).model_copy(update={"budget_gpu_hours": 1e-9})
    graph = plan_study(study)
    with pytest.raises(InputError, match="study-over-budget"):
        check_budget(graph, cost_of_study(graph, Store(tmp_path)))


@pytest.mark.parametrize("rule", ["split", "halve"])
def test_where_memory_is_short_as_many_tokens_are_processed(grid_study, rule):
    from optaware.study import memory_bytes

    study = load_study(grid_study)
    model, schedule = study.models[0], study.schedule
    whole = memory_bytes(model, FOLoRA(), schedule)
    single = memory_bytes(model, FOLoRA(), schedule.model_copy(update={"accumulation": 4}))
    limit = {"limit_gb": (whole + single) / 2 / 1e9, "when_short": rule}
    data = {**study.to_json(), "memory": limit, "methods": [{"config": {"name": "fo-lora"}}]}
    runs = [run for run in plan_study(type(study).model_validate(data)).runs if run.schedule.steps]
    for run in runs:
        used = run.schedule
        assert used.steps * used.batch_size == schedule.steps * schedule.batch_size
        assert (used.accumulation > 1) == (rule == "split")
        assert (used.batch_size < schedule.batch_size) == (rule == "halve")
    data["memory"] = {"limit_gb": single / 2e9, "when_short": rule}
    with pytest.raises(InputError, match="memory-short"):
        plan_study(type(study).model_validate(data))
    left = plan_study(type(study).model_validate({**data, "memory": {**data["memory"], "leave_out": True}}))
    assert len(left.left_out) == 1


def test_models_that_are_missing_are_named_all_at_once(tmp_path, grid_study, optaware):
    shown = optaware("run", grid_study, "--store", tmp_path, "--model", "./nowhere", "--model", "no-such-thing")
    assert shown.returncode == 2
    assert "nowhere" in shown.stderr
    assert "no-such-thing" in shown.stderr


def test_a_model_s_size_is_told_without_loading_it(tiny_model_dir):
    from transformers import AutoModelForCausalLM

    from optaware.models import model_size

    model = AutoModelForCausalLM.from_pretrained(tiny_model_dir)
    size = model_size(ModelRef(name=str(tiny_model_dir)))
    assert size.how == "weights"
    assert size.parameters == sum(each.numel() for each in model.parameters())
    guess = model_size(ModelRef(name="somebody/Some-7B-v0.1"))
    assert guess.how == "name"
    assert guess.parameters == 7_000_000_000
    assert model_size(ModelRef(name="somebody/unsized")) is None


def test_rows_that_were_given_stand_in_for_rewriting(tmp_path, grid_study, optaware):
    from optaware.tasks import get_task, load_splits

    data = yaml.safe_load(grid_study.read_text("utf-8"))
    study = load_study(grid_study)
    task = get_task(study.tasks[0])
    rows = [{"example_id": row.id, **row.fields} for row in load_splits(task, study.protocol).train]
    for row in rows[:5]:
        row[task.span] = f"{row[task.span]} Thank you."
    given = tmp_path / "mine.jsonl"
    given.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    data |= {
        "variants": [{"name": "original"}, {"name": "mine", "rows": str(given)}],
        "methods": [{"config": {"name": "mezo", "direction": "low-rank", "lr": 1.0e-3, "refresh_every": 3}}],
        "seeds": [0],
        "schedule": {**data["schedule"], "steps": 2},
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(data), "utf-8")
    store = tmp_path / "store"
    ended = optaware("run", path, "--store", store, *IN_PROCESS, "--export", tmp_path / "away")
    assert ended.returncode == 0, ended.stderr
    (card,) = (json.loads(each.read_text("utf-8")) for each in store.glob("corpora/*/card.json"))
    assert (card["rows"], card["identical"], card["judge"]) == (12, 7, "nobody")
    assert len(list(store.glob("runs/*-mine-*/DONE"))) == 1
    records = [json.loads(line) for line in (tmp_path / "away" / "runs.jsonl").read_text("utf-8").splitlines()]
    assert [each["state"] for each in records] == ["done"] * 3
    assert str(tmp_path) not in "".join(each.read_text("utf-8") for each in (tmp_path / "away").iterdir())
    del rows[3][task.span]
    rows[4]["example_id"] = rows[5]["example_id"]
    given.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    refused = optaware("run", path, "--store", tmp_path / "other", "--dry-run")
    assert refused.returncode == 2
    assert "given twice" in refused.stderr


def test_a_results_folder_of_a_later_version_is_refused_untouched(done, grid_study, tmp_path):
    from optaware.errors import StorageError
    from optaware.store import STORE_VERSION, check_version
    from optaware.study import run_study

    root = tmp_path / "later"
    check_version(root)
    check_version(root)
    note = json.loads((root / "store.json").read_text("utf-8"))
    assert note["store_version"] == STORE_VERSION
    (root / "store.json").write_text(json.dumps({**note, "store_version": STORE_VERSION + 1}), "utf-8")
    with pytest.raises(StorageError, match="store-newer"):
        run_study(plan_study(load_study(grid_study)), Store(root), None)
    assert [path.name for path in root.iterdir()] == ["store.json"]
    (root / "store.json").write_text("[]", "utf-8")
    with pytest.raises(StorageError, match="store-note"):
        check_version(root)


def test_two_drivers_on_one_study_do_not_meet(grid_study, tmp_path):
    from optaware._io import lock
    from optaware.errors import StorageError
    from optaware.study import run_study

    study, store = load_study(grid_study), Store(tmp_path)
    with lock(store.study_folder(study) / ".lock"), pytest.raises(StorageError, match="study-busy"):
        run_study(plan_study(study), store, None)
    assert not (tmp_path / "runs").exists()
