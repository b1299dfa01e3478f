"""`scripts/oat_pipeline.py` whole: templates, corpora, evidence, search and report from one command."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"
RULES = ("Write short sentences, since long ones make the losses noisy.", "Use plain and common words in direct order.")
PAPER = (
    "# Zig\n\n## Abstract\nZig perturbs the weights and compares the two losses of a training text.\n\n"
    "## Introduction\nZig compares the two losses of a training text. Long sentences make the losses noisy.\n"
)
WHO = ("boy", "girl", "cook", "judge", "nurse", "clerk", "baker", "guard")
WHAT = ("bell", "lamp", "rope", "coat", "ring", "drum", "boat", "sock")


def replies(path: Path) -> Path:
    lines = [
        {"contains": "Describe in one or two", "text": "Zig perturbs the weights and measures two losses."},
        {"contains": "Answer in one full sentence", "text": "- Zig compares the two losses of a training text."},
        {"contains": "rules for the writer", "text": f"- {RULES[0]}\n- {RULES[1]}"},
        {"contains": "Rewrite:", "text": "same"},
    ]
    lines += [
        {"contains": f"The {a} sold the {b}.", "text": f"The {b} was sold by the {a}."}
        for a, b in zip(WHO, WHAT, strict=True)
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for task, row in (
        ("copa", {"choice1": "It rained.", "choice2": "He paid.", "question": "effect"}),
        ("rte", {"hypothesis": "Something was sold."}),
    ):
        folder = tmp_path / "data" / task
        folder.mkdir(parents=True)
        span = "premise"
        rows = [
            {**row, span: f"The {a} sold the {b}.", "label": n % 2, "idx": n}
            for n, (a, b) in enumerate(zip(WHO, WHAT, strict=True))
        ]
        (folder / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
        (folder / "validation.jsonl").write_text(json.dumps({**rows[0], span: "A king rode home."}))
    return tmp_path / "data"


def test_one_command_makes_templates_corpora_evidence_search_and_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data: Path, tiny_model_dir: Path
) -> None:
    monkeypatch.setenv("OPTAWARE_DATA_DIR", str(data))
    (tmp_path / "zig.md").write_text(PAPER)
    out = tmp_path / "out"
    told = ["oat_pipeline", "--paper", str(tmp_path / "zig.md"), "--optimizer", "Zig", "--llm"]
    told += [str(replies(tmp_path / "replies.jsonl")), "--train", str(tiny_model_dir), "--tasks", "copa", "rte"]
    told += ["--rows", "6", "--directions", "2", "--candidates", "2", "--no-judge", "--store", str(tmp_path / "store")]
    told += ["--build", "--protocol all --rows 4 --shots 3 --points 1 --context-chars 500 --examples oat"]
    told += ["--transfer", "--protocol all --rows 4 --shots 3", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", told)
    monkeypatch.syspath_prepend(str(SCRIPTS))
    assert runpy.run_path(str(SCRIPTS / "oat_pipeline.py"))["main"]() == 0
    found = json.loads((out / "report.json").read_text())
    steps = {name: step["code"] for name, step in found["steps"].items()}
    assert steps == dict.fromkeys(steps, 0)
    copa, rte = found["tasks"]["copa"], found["tasks"]["rte"]
    assert (copa["template"]["final_valid"], rte["template"]["shots"]) == (4, 3)
    assert set(copa["corpora"]) == {"built", "built-first", "built-search", "paraphrase-first", "paraphrase-search"}
    own = rte["corpora"]["built"]
    assert (own["accepted"], own["rows"], own["among_examples"]) == (6, 6, 2), (
        "an example that comes up as a row may be answered as it is shown"
    )
    assert own["evidence"]["probes"]["directions"] == 2
    page = (out / "report.md").read_text()
    assert "| rte | 6 | 6 (100 %); 2 of 2 that are examples |" in page
    assert "accepted, but the interval reaches below" in page
    whole = "".join(path.read_text() for path in out.rglob("*") if path.is_file())
    assert str(tmp_path) not in whole.replace(str(tiny_model_dir), "").replace(str(tmp_path / "replies.jsonl"), "")
    assert "The boy sold" not in whole
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("DONE")}
    assert runpy.run_path(str(SCRIPTS / "oat_pipeline.py"))["main"]() == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("DONE")} == before
    assert json.loads((out / "report.json").read_text()) == found
