"""The MeZO plan that ships: its arms, their budgets, and the whole of it on the tiny model."""

import json
from pathlib import Path

import pytest

from optaware._io import read_yaml
from optaware.errors import InputError
from optaware.records import FOLoRA, MeZO
from optaware.store import Store
from optaware.study import load_plan_request, make_plan_graph
from optaware.study._plan_cost import equal_steps, forwards_per_step

STUDIES = Path(__file__).parents[2] / "studies"
TASK = Path(__file__).parents[2] / "examples" / "tasks" / "ticket_routing.yaml"


def _graph(tmp_path, **options):
    request = load_plan_request(None, study=STUDIES / "mezo_plan.yaml", scale="small", options=options)
    return make_plan_graph(request, Store(tmp_path))


def test_the_baseline_comes_first_and_every_arm_spends_its_forward_passes(tmp_path):
    graph = _graph(tmp_path)
    seeds = graph.planned.spec.seeds
    assert [run.spec.seed for run in graph.runs[: len(seeds)]] == list(seeds)
    arms = {arm.label: arm for entry in graph.planned.ablations for arm in entry.arms}
    assert {arm.forwards for arm in arms.values()} == {800}
    assert (arms["4"].steps, arms["8"].steps, arms["One-point estimator"].steps) == (100, 50, 800)
    assert arms["1"].is_baseline
    assert arms["SPSA"].runs == graph.planned.baseline.runs
    assert {change.field for change in arms["LoRA"].changes} == {"parameters", "lr", "eps"}
    # Nine arms that differ, the baseline and its further seeds; the untrained model; the first again.
    assert len(graph.runs) == 11 * len(seeds) + 2
    steps = _graph(tmp_path, budget="steps").planned
    assert {arm.steps for entry in steps.ablations for arm in entry.arms} == {400}


@pytest.mark.parametrize(
    ("method", "cost"),
    [
        (MeZO(queries=4), 8),
        (MeZO(queries=4, estimator="one-sided"), 5),
        (MeZO(queries=4, estimator="one-point"), 4),
        (MeZO(queries=3, query_schedule="linear"), 4),
        (FOLoRA(), 3),
        (object(), None),
    ],
)
def test_the_cost_of_an_update(method, cost):
    assert forwards_per_step(method) == cost


def test_equal_budgets_keep_the_number_of_evaluations():
    assert equal_steps(400, 50, 2, 8) == (100, 13)
    assert equal_steps(400, 50, 2, 1) == (800, 100)
    assert equal_steps(3, 1, 2, 16) == (1, 1)
    assert equal_steps(400, 50, None, 8) == (400, 50)


def test_a_contradictory_binding_and_a_foreign_one_are_refused(tmp_path):
    data = read_yaml(STUDIES / "mezo_binding.yaml")
    data["contradictions"] = ["an old one, which has been mended"]
    data["entries"][0]["arms"][1]["changes"] = {"queries": 8}
    data["entries"][1]["arms"][1]["changes"] = {"eps": -1.0}
    data["entries"][2]["arms"][0]["changes"] = {"no_such_field": 1}
    path = tmp_path / "binding.yaml"
    path.write_text(json.dumps(data), "utf-8")
    with pytest.raises(InputError) as caught:
        make_plan_graph(load_plan_request(path, method="mezo"), Store(tmp_path))
    told = [problem.given for problem in caught.value.problems]
    assert {problem.code for problem in caught.value.problems} == {"binding-contradiction"}
    assert [text.partition(", ")[2] for text in told] == [
        "8: the same change as 4",
        "1e-4: eps: Input should be greater than 0",
        "removed: mezo has no no_such_field",
    ]
    with pytest.raises(InputError, match="binding-other-method"):
        make_plan_graph(load_plan_request(path, method="fo-full"), Store(tmp_path))
    with pytest.raises(InputError, match="baseline-conflict"):
        make_plan_graph(load_plan_request(path, method="mezo", options={"baseline.eps": 0.5}), Store(tmp_path))


def test_an_unknown_scale_names_the_known_ones():
    with pytest.raises(InputError, match="paper, small, smoke"):
        load_plan_request(None, study=STUDIES / "mezo_plan.yaml", scale="huge")


def test_a_dry_run_does_nothing(tmp_path, optaware):
    shown = optaware(
        "plan", "run", "--study", STUDIES / "mezo_plan.yaml", "--store", tmp_path / "s", "--dry-run", "--json"
    )
    assert shown.returncode == 0, shown.stderr
    told = json.loads(shown.stdout)
    assert (told["runs"], told["left"], told["forwards"]) == (33, 33, 26_400)
    assert not (tmp_path / "s").exists()


def _check_export(folder, *paths):
    """What may be given away holds no path of this machine, and enough to compute the accuracies again."""
    rows = [json.loads(line) for line in (folder / "runs.jsonl").read_text("utf-8").splitlines()]
    assert [row["state"] for row in rows] == ["done"] * len(rows)
    assert rows[-1]["arm"] == "baseline, the first seed again"
    for row in rows:
        assert row["correct"].count("1") / len(row["correct"]) == pytest.approx(row["result"]["test"]["accuracy"])
    assert len({row["rows_sha256"] for row in rows}) == 1
    assert {"report.html", "report.md", "arms.csv", "runs.csv", "results.json", "planned.json", "binding.yaml"} < {
        path.name for path in folder.iterdir()
    }
    for path in folder.iterdir():
        text = path.read_text("utf-8")
        assert not [found for found in paths if found in text], path.name
    assert json.loads((folder / "planned.json").read_text("utf-8"))["spec"]["name"] == "tiny"


def test_two_ablations_run_whole_on_the_tiny_model(tmp_path, tiny_model_dir, optaware):
    data = read_yaml(STUDIES / "mezo_binding.yaml")
    data["entries"] = [data["entries"][0], data["entries"][4]]
    data["run"] = {"model": {"name": str(tiny_model_dir), "dtype": "fp32"}, "tasks": [str(TASK)], "seeds": [0, 1]}
    data["run"]["schedule"] = {"steps": 4, "batch_size": 4, "eval_every": 2, "max_length": 64}
    data["entries"][0]["arms"].pop()
    binding, store = tmp_path / "binding.yaml", tmp_path / "store"
    binding.write_text(json.dumps(data), "utf-8")
    study = tmp_path / "study.yaml"
    protocol = {"name": "free", "train": 12, "dev": 6, "test": 9}
    spec = {
        "name": "tiny",
        "method": "mezo",
        "noise_seeds": [2],
        "data": {"kind": "task", "task": "", "protocol": protocol},
    }
    study.write_text(json.dumps(spec), "utf-8")
    arguments = ["plan", "run", binding, "--study", study, "--store", store, "--executor", "in-process"]
    arguments += ["--export", tmp_path / "out"]
    done = optaware(*arguments)
    assert done.returncode == 0, done.stderr
    _check_export(tmp_path / "out", str(tmp_path), str(tiny_model_dir), str(Path.home()))
    (folder,) = store.glob("plans/*")
    results = json.loads((folder / "results.json").read_text("utf-8"))
    assert results["noise_floor"]["repeated"] == 0
    assert results["noise_floor"]["runs"] == 3
    assert [row["name"] for row in results["ablations"]] == [row["name"] for row in data["entries"]]
    for row in results["ablations"]:
        for arm in row["arms"]:
            assert arm["means"]["forward passes"] == 8
            assert arm["means"]["accuracy"] is not None
    assert (folder / "binding.yaml").exists()
    assert "GPU-hours" in results["ablations"][0]["not_measured"]
    before = {path: path.stat().st_mtime_ns for path in store.glob("runs/*/result.json")}
    again = optaware(*arguments)
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in store.glob("runs/*/result.json")} == before
