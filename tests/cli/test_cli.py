"""The command line as a user meets it: help, exit codes, and bad input told whole."""

import json
import os
import subprocess
import sys

import pytest

from optaware.cli._app import invoke
from optaware.errors import InputError


def run(*arguments, **environment):
    command = [sys.executable, "-m", "optaware", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **environment)


def test_help_names_every_command_and_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['optaware', '--help']\n"
        "from optaware.cli import main\n"
        "try: main()\n"
        "except SystemExit as end: assert not end.code\n"
        "heavy = {'torch', 'transformers', 'scipy', 'matplotlib', 'openai', 'datasets', 'httpx'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("run", "train", "eval", "data", "plan", "tasks", "assets", "runs", "report", "doctor"):
        assert name in done.stdout


@pytest.mark.parametrize(
    "arguments", [["--no-such-option"], ["no-such-command"], ["train"], ["run", "--workers", "many"]]
)
def test_wrong_usage_leaves_with_2(arguments):
    assert run(*arguments).returncode == 2


def test_all_faults_of_a_study_are_shown_at_once_and_nothing_is_made(tmp_path):
    study = tmp_path / "study.yaml"
    study.write_text(
        "name: s\nmodels: [{name: m, dtype: int3}]\ntasks: [copa]\nmethods: [{config: {name: mezzo}}]\ntypo: 1\n"
        "seeds: []\n"
    )
    done = run("run", study, "--store", tmp_path / "store")
    assert done.returncode == 2
    for part in ("dtype", "mezzo", "typo", "seeds", "study.yaml"):
        assert part in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("name: [", ("malformed", "study.yaml:1")),
        ("- a\n- b\n", ("not-a-mapping",)),
        ("name: s\nmodels: [{name: m}]\ntasks: [coppa]\nmethods: [{config: {name: mezo}}]\n", ("coppa", "copa")),
    ],
)
def test_a_study_that_cannot_be_read_says_where_and_why(tmp_path, text, parts):
    study = tmp_path / "study.yaml"
    study.write_text(text)
    done = run("run", study, "--store", tmp_path / "store")
    assert done.returncode == 2
    for part in parts:
        assert part in done.stderr


def test_a_missing_file_is_named(tmp_path):
    done = run("train", tmp_path / "spec.yaml")
    assert done.returncode == 2
    assert "spec.yaml" in done.stderr
    assert "file-missing" in done.stderr


def _task(folder, rows, **changes):
    (folder / "rows.jsonl").write_text("".join(row + "\n" for row in rows))
    task = {
        "name": "mine",
        "version": "1",
        "citation": "me",
        "licence": "CC0-1.0",
        "fields": {"text": "text", "label": "integer"},
        "span": "text",
        "label": "label",
        "options": ["bad", "good"],
        "prompt": "{{ text }} It was",
        "loss": "options",
        "description": "d",
        "role": "r",
        "splits": {"train": "rows.jsonl"},
        **changes,
    }
    path = folder / "task.yaml"
    path.write_text(json.dumps(task))
    return path


def test_all_faults_of_a_data_file_are_shown_with_their_lines(tmp_path):
    rows = [
        '{"text": "fine", "label": 1}',
        '{"text": "label too large", "label": 7}',
        '{"label": 0}',
        '{"text": 3, "label": 0}',
    ]
    done = run("tasks", "show", _task(tmp_path, rows))
    assert done.returncode == 2, done.stdout
    for line in (2, 3, 4):
        assert f"rows.jsonl:{line}" in done.stderr


def test_an_empty_split_is_refused(tmp_path):
    done = run("tasks", "show", _task(tmp_path, []))
    assert done.returncode == 2
    assert "rows.jsonl" in done.stderr


def test_changes_on_the_command_line_are_checked(tmp_path):
    spec = tmp_path / "spec.yaml"
    spec.write_text("model: {name: m}\ndata: {task: copa}\nmethod: {name: mezo}\n")
    with pytest.raises(InputError, match="greater than 0"):
        invoke(["train", str(spec), "--set", "method.eps=-1"])
    with pytest.raises(InputError, match="field=value"):
        invoke(["train", str(spec), "--set", "method.eps"])


def test_an_unknown_model_is_refused_with_the_names_there_are(tmp_path):
    spec = tmp_path / "spec.yaml"
    rows = [json.dumps({"text": f"fine {number}", "label": number % 2}) for number in range(6)]
    task = _task(tmp_path, rows)
    protocol = "{name: free, train: 2, dev: 2, test: 2}"
    spec.write_text(
        f"model: {{name: smolm2}}\ndata: {{task: {task}, protocol: {protocol}}}\nmethod: {{name: zero-shot}}\n"
    )
    done = run("train", spec, "--store", tmp_path / "store")
    assert done.returncode == 2, done.stderr
    assert "smollm2-135m-instruct" in done.stderr


def test_hub_models_that_cannot_be_had_are_told_before_anything_runs_and_all_at_once(tmp_path):
    task = _task(tmp_path, [json.dumps({"text": f"fine {number}", "label": number % 2}) for number in range(6)])
    study = tmp_path / "study.yaml"
    study.write_text(
        f"name: s\nmodels: [{{name: nobody-here/one}}, {{name: nobody-here/two}}]\ntasks: [{task}]\n"
        "protocol: {name: free, train: 2, dev: 2, test: 2}\nmethods: [{config: {name: mezo}}]\n"
    )
    offline = {"env": {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")}}
    shown = run("run", study, "--store", tmp_path / "store", "--dry-run", **offline)
    assert shown.returncode == 0, shown.stderr
    assert "to be fetched from the hub: nobody-here/one, nobody-here/two." in shown.stdout
    done = run("run", study, "--store", tmp_path / "store", **offline)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("[model-unknown]") == 2
    assert "nobody-here/one" in done.stderr
    assert "nobody-here/two" in done.stderr
    assert not (tmp_path / "store" / "runs").exists()


def test_listing_an_empty_store_is_no_fault(tmp_path):
    done = run("runs", "list", "--store", tmp_path, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == []
    assert run("runs", "show", "abc", "--store", tmp_path).returncode == 2
