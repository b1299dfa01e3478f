"""`optaware plan` as a user meets it: what is printed where, and the exit codes."""

import io
import json
import re
import sys
from pathlib import Path

import pytest

from optaware.cli._app import invoke
from optaware.errors import InputError

ROW = (
    '{"name": "No momentum", "ablated_part": "momentum", "action": "REMOVE", "replacement": null, "metrics": ["loss"]}'
)


@pytest.fixture
def plan(tmp_path):
    def written(text, name="plan.txt"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return written


def test_parse_prints_rows_and_tells_what_was_lost(plan, capsysbinary):
    assert invoke(["plan", "parse", plan(f"{ROW}\n{{bad\n{ROW}")]) == 1
    out, err = capsysbinary.readouterr()
    rows = [json.loads(line) for line in out.decode().splitlines()]
    assert [list(row) for row in rows] == [["name", "ablated_part", "action", "replacement", "metrics"]] * 2
    assert b"plan.txt:2" in err
    assert b"entry-cut-off" in err
    assert invoke(["plan", "parse", plan(ROW)]) == 0
    assert capsysbinary.readouterr().out.decode() == ROW + "\n"


def test_parse_and_render_give_the_mended_page(plan, page, tmp_path, capsysbinary):
    damaged = plan(page.encode().decode("mac_roman"))
    assert invoke(["plan", "parse", damaged, "--json"]) == 0
    out = capsysbinary.readouterr().out
    assert json.loads(out)["encoding"][0]["read_as"] == "mac_roman"
    assert invoke(["plan", "render", plan(out, "doc.json"), "--to", "page"]) == 0
    assert capsysbinary.readouterr().out == page.encode()
    assert invoke(["plan", "render", damaged, "--to", "page", "--out", str(tmp_path / "p.md")]) == 0
    assert (tmp_path / "p.md").read_bytes() == page.encode()


def test_a_page_can_be_made_from_rows(plan, capsysbinary):
    told = ["--model", "m", "--paper", "p", "--task", "reviewer"]
    assert invoke(["plan", "render", plan(ROW), "--to", "page", *told]) == 0
    text = capsysbinary.readouterr().out.decode()
    assert "# lm-planner/m/p\n" in text
    assert "#e8f5e8" in text
    assert invoke(["plan", "render", plan(ROW), "--to", "md"]) == 0
    assert capsysbinary.readouterr().out.decode().startswith("## Ablation Plan\n\n### No momentum\n")


def test_standard_input(capsysbinary, monkeypatch):
    class Stdin:
        buffer = io.BytesIO(ROW.encode())

    monkeypatch.setattr(sys, "stdin", Stdin)
    assert invoke(["plan", "parse", "-", "--json"]) == 0
    assert json.loads(capsysbinary.readouterr().out)["read_from"] == "jsonl"


@pytest.mark.parametrize("text", ["", "words", "<predictions></predictions>"])
def test_unusable_input(plan, text):
    with pytest.raises(InputError) as caught:
        invoke(["plan", "parse", plan(text)])
    assert caught.value.exit_code == 2


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(InputError):
            invoke(["plan", "parse", str(path)])


def test_check(plan, capsys):
    assert invoke(["plan", "check", plan(ROW)]) == 0
    assert "2 runs with the baseline" in capsys.readouterr().out
    assert invoke(["plan", "check", plan(ROW), "--method", "mezo", "--seeds", "2", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["runs"], report["findings"]) == (4, [])
    assert invoke(["plan", "check", plan(ROW), "--method", "zero-shot", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [finding["code"] for finding in report["findings"]] == ["part-not-covered"]
    assert invoke(["plan", "check", plan(f"{ROW}\n{ROW}"), "-k", "1"]) == 1
    out = capsys.readouterr().out
    assert "name-twice" in out
    assert "beyond-k" in out


def test_score(plan, tmp_path, capsys):
    path = plan(ROW)
    assert invoke(["plan", "score", path, "--reference", path]) == 0
    assert "F1 1.000" in capsys.readouterr().out
    assert invoke(["plan", "score", path, "--reference", path, "-k", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ndcg"] == 1.0
    folder = tmp_path / "plans"
    folder.mkdir()
    (folder / "plan.txt").write_text(ROW)
    assert invoke(["plan", "score", str(folder), "--reference", str(folder)]) == 0
    assert "1 papers" in capsys.readouterr().out
    with pytest.raises(InputError):
        invoke(["plan", "score", path, "--reference", str(folder)])
    references = tmp_path / "references"
    references.mkdir()
    for name in ("plan.txt", "other.txt"):
        (references / name).write_text(ROW)
    assert invoke(["plan", "score", str(folder), "--reference", str(references), "--json"]) == 1
    out, err = capsys.readouterr()
    assert [paper["score"]["f1"] for paper in json.loads(out)["papers"]] == [0.0, 1.0]
    assert "other" in err


def test_the_example_of_the_page_runs(capsys):
    page = (Path(__file__).parents[2] / "docs" / "plans.md").read_text("utf-8")
    (text,) = re.findall(r"```python\n(.*?)```", page, flags=re.S)
    exec(compile(text, "plans.md", "exec"), {})
    out = capsys.readouterr().out
    assert out.startswith("1 read; ['entry-cut-off']\n['trailing-comma', 'action-spelling']\n2 runs\n1.0\n")
