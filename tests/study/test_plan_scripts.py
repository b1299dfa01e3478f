"""Plans over a stranger's script: the shipped example, faults of scripts and manifests, stop and resume."""

import json
import shlex
import signal
import sys
from pathlib import Path

import pytest
import yaml

from optaware.errors import InputError
from optaware.records import ManifestMetric
from optaware.store import Store
from optaware.study import ScriptFolder, load_plan_request, make_plan_graph, script_one
from optaware.study._plan_export import without_paths
from optaware.study._script_metrics import collect_metrics

EXAMPLE = Path(__file__).parents[2] / "examples" / "plan_any_script"

SCRIPT = """
import os, random, sys, time
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
seed, rate = int(options["--seed"]), float(options["--rate"])
if rate == 9.0:
    print("unrecognized arguments: --rate 9.0")
    sys.exit(2)
time.sleep(float(os.environ.get("PAUSE", "0")))
print("starting, acc=0.1")
print(f"acc={0.5 + rate + random.Random(seed).random() / 100}")
"""


def _write(folder, *, rates=(0.1, 0.2), **changes):
    """A script, its manifest and a binding of one ablation with these values."""
    (folder / "script.py").write_text(SCRIPT, "utf-8")
    manifest = {
        "name": "probe",
        "command": [sys.executable, "script.py", "{flags}"],
        "seed": {"flag": "--seed {value}"},
        "components": {"rate": {"words": "rate", "type": "number", "baseline": 0.1, "flag": "--rate {value}"}},
        "metrics": {"accuracy": {"line": "acc"}},
        **changes,
    }
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest), "utf-8")
    arms = [{"label": "base", "is_baseline": True}]
    arms += [{"label": str(rate), "changes": {"rate": rate}} for rate in rates if rate != 0.1]
    entry = {"name": "Rate", "part": "rate", "action": "REPLACE", "status": "bound", "arms": arms}
    entry |= {"why": {"by": "person", "how": "rate"}, "metrics": [{"text": "accuracy", "name": "accuracy"}]}
    binding = {"plan": {"source": "by hand", "sha256": "0" * 64}, "manifest": "manifest.yaml", "entries": [entry]}
    binding["baseline"] = {"rate": 0.1}
    (folder / "binding.yaml").write_text(yaml.safe_dump(binding), "utf-8")
    return folder / "binding.yaml"


def _results(store):
    (path,) = store.glob("plans/*/results.json")
    return json.loads(path.read_text("utf-8"))


def test_the_shipped_example_runs_whole(tmp_path, optaware):
    store = tmp_path / "store"
    command = shlex.join([sys.executable, str(EXAMPLE / "train.py"), "{flags}"])
    arguments = ["plan", "run", EXAMPLE / "binding.yaml", "--command", command, "--store", store, "--seeds", 2]
    done = optaware(*arguments, "--workers", 2)
    assert done.returncode == 0, done.stderr
    results = _results(store)
    assert {row["name"]: row["verdict"] for row in results["ablations"]}.keys() == {
        "Input scaling",
        "Regularisation strength",
        "Penalty",
    }
    arms = {arm["label"]: arm for row in results["ablations"] for arm in row["arms"]}
    assert arms["1.0"]["means"]["accuracy"] < arms["0.01"]["means"]["accuracy"]
    assert set(arms["removed"]["means"]) >= {"accuracy", "F1", "loss", "wall time"}
    assert results["noise_floor"]["repeated"] == 0
    assert len(results["runs"]) == (2 + 2) + 4 * 2
    page = next(store.glob("plans/*/report.html")).read_text("utf-8")
    assert all(run["run"] in page for run in results["runs"])
    before = {path: path.stat().st_mtime_ns for path in store.glob("scripts/*/result.json")}
    again = optaware(*arguments, "--json")
    assert again.returncode == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in store.glob("scripts/*/result.json")} == before


def test_the_example_with_the_trainer_of_transformers_runs(tmp_path, tiny_model_dir, monkeypatch):
    monkeypatch.setenv("MODEL", str(tiny_model_dir))
    folder = EXAMPLE / "transformers"
    command = [sys.executable, str(folder / "train.py"), "{flags}"]
    options = {"command": command, "primary": "loss", "seeds": [0], "noise_seeds": []}
    graph = make_plan_graph(load_plan_request(folder / "binding.yaml", options=options), Store(tmp_path))
    assert [run.command[-1] for run, _ in graph.scripts] == ["0"] * 3
    result = script_one(graph.scripts[0][0], ScriptFolder(tmp_path / "run"))
    assert 0 < result.metrics["loss"] < 20


def test_an_arm_that_fails_is_recorded_and_run_again(tmp_path, optaware):
    binding, store = _write(tmp_path, rates=(0.2, 9.0)), tmp_path / "store"
    ended = optaware("plan", "run", binding, "--store", store, "--seeds", 2)
    assert ended.returncode == 1
    assert "script-failed" in ended.stderr
    assert "unrecognized arguments: --rate 9.0" in ended.stderr
    results = _results(store)
    states = {(run["arm"], run["state"]) for run in results["runs"]}
    assert ("Rate: 9.0", "failed") in states
    assert ("Rate: 0.2", "done") in states
    (arm,) = [arm for arm in results["ablations"][0]["arms"] if arm["label"] == "0.2"]
    assert arm["difference"]["estimate"] == pytest.approx(0.1)
    script = tmp_path / "script.py"  # an edited script is another run
    script.write_text(SCRIPT.replace("rate == 9.0", "rate == 8.0"), "utf-8")
    mended = optaware("plan", "run", binding, "--store", store, "--seeds", 2)
    assert mended.returncode == 0, mended.stderr


def test_a_baseline_that_always_fails_stops_the_plan(tmp_path, optaware):
    binding = _write(tmp_path, components={"rate": {"words": "r", "type": "number", "flag": "--rte {value}"}})
    ended = optaware("plan", "run", binding, "--store", tmp_path / "store", "--seeds", 2)
    assert ended.returncode == 1
    assert "every run of the baseline failed" in ended.stderr
    assert "No result yet: Rate. 6 of 6 runs have no result." in ended.stdout
    assert not list((tmp_path / "store").glob("scripts/*0.2*/status.json"))


def test_a_stop_and_a_kill_lose_nothing(tmp_path, optaware, interrupted, monkeypatch):
    monkeypatch.setenv("PAUSE", "0.5")
    binding, store = _write(tmp_path), tmp_path / "store"
    arguments = ["plan", "run", binding, "--store", store, "--seeds", "2"]
    code = interrupted(arguments, when=lambda: any(store.glob("scripts/*/DONE")), number=signal.SIGINT)
    assert code == 3
    interrupted(arguments, when=lambda: len(list(store.glob("scripts/*/DONE"))) >= 3)
    done = optaware(*arguments)
    assert done.returncode == 0, done.stderr
    assert all(run["state"] == "done" for run in _results(store)["runs"])


def test_a_time_limit_stops_in_order_and_reports_what_is_there(tmp_path, optaware, monkeypatch):
    monkeypatch.setenv("PAUSE", "600")
    binding, store = _write(tmp_path), tmp_path / "store"
    arguments = ["plan", "run", binding, "--store", store, "--seeds", "1", "--export", tmp_path / "out"]
    ended = optaware(*arguments, "--stop-after-s", 3)
    assert ended.returncode == 3, ended.stderr
    assert "goes on from here" in ended.stderr
    assert "have no result" in (tmp_path / "out" / "report.md").read_text("utf-8")
    monkeypatch.setenv("PAUSE", "0")
    assert optaware(*arguments).returncode == 0
    rows = [json.loads(line) for line in (tmp_path / "out" / "runs.jsonl").read_text("utf-8").splitlines()]
    assert {row["state"] for row in rows} == {"done"}
    assert str(tmp_path) not in (tmp_path / "out" / "runs.jsonl").read_text("utf-8")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("cwd /home/me/a b/c.py: and /opt/x/y-1.2/z", "cwd …/c.py: and …/z"),
        (
            "</td></tr> 3/4 a/b/c https://www.w3.org/2000/svg ./a/b",
            "</td></tr> 3/4 a/b/c https://www.w3.org/2000/svg ./a/b",
        ),
        ('{"path": "/tmp/x/store", "n": "/"}', '{"path": "…/store", "n": "/"}'),
        ("data-dir:/tmp/data/copa,file http://h:80/v1/x", "data-dir:…/copa,file http://h:80/v1/x"),
    ],
)
def test_paths_of_a_machine_are_cut_down(given, expected):
    assert without_paths(given, ["/home/me/a b/c.py"]) == expected


def test_everything_wrong_with_manifest_and_binding_is_told_at_once(tmp_path):
    binding = _write(tmp_path, command=["no-such-program"], metrics={"score": {"line": "s"}}, seed=None)
    text = (
        binding.read_text("utf-8").replace("rate: 0.2", "rate: much").replace("baseline:\n  rate", "baseline:\n  rte")
    )
    binding.write_text(text, "utf-8")
    request = load_plan_request(binding)
    with pytest.raises(InputError) as caught:
        make_plan_graph(request, Store(tmp_path / "store"))
    codes = {problem.code for problem in caught.value.problems}
    assert codes == {"command-program", "primary-unknown", "seed-missing", "component-unknown", "component-value"}


def test_a_script_that_is_not_there_is_told_before_anything_runs(tmp_path):
    binding = _write(tmp_path, command=[sys.executable, "scrpt.py", "{flags}"])
    with pytest.raises(InputError, match="command-file") as caught:
        make_plan_graph(load_plan_request(binding), Store(tmp_path / "store"))
    assert "scrpt.py" in str(caught.value)


def test_values_reach_the_script_as_single_words(tmp_path):
    component = {"words": "note", "type": "text", "flag": "--note {value}"}
    binding = _write(tmp_path, components={"rate": component})
    text = (
        binding.read_text("utf-8")
        .replace("rate: 0.2", 'rate: "a b; rm -rf {out} $(x)"')
        .replace("  rate: 0.1\n", "  rate: x\n")
    )
    binding.write_text(text, "utf-8")
    graph = make_plan_graph(load_plan_request(binding), Store(tmp_path / "store"))
    words = [spec.command for spec, _ in graph.scripts]
    assert any("a b; rm -rf {out} $(x)" in command for command in words)


def test_metrics_that_are_missing_or_no_numbers_are_told_at_once(tmp_path):
    (tmp_path / "output.txt").write_text("loss=low\nacc: 0.5\nacc: 75%\n", "utf-8")
    (tmp_path / "m.json").write_text('{"a": {"b": true}, "n": NaN}', "utf-8")
    (tmp_path / "link.json").symlink_to(tmp_path.parent / "elsewhere.json")
    metrics = {
        "fine": ManifestMetric(line="acc"),
        "text": ManifestMetric(line="loss"),
        "none": ManifestMetric(line="f1"),
        "bool": ManifestMetric(file="m.json", key="a.b"),
        "key": ManifestMetric(file="m.json", key="a.c"),
        "nan": ManifestMetric(file="m.json", key="n"),
        "file": ManifestMetric(file="other.json", key="a"),
        "outside": ManifestMetric(file="link.json", key="a"),
    }
    with pytest.raises(InputError) as caught:
        collect_metrics(metrics, tmp_path, tmp_path / "output.txt")
    assert [problem.code for problem in caught.value.problems] == [
        "metric-type",
        "metric-missing",
        "metric-type",
        "metric-missing",
        "metric-type",
        "metric-missing",
        "metric-elsewhere",
    ]
    assert collect_metrics({"fine": metrics["fine"]}, tmp_path, tmp_path / "output.txt") == {"fine": 0.75}
