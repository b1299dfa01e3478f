"""`optaware eval` on runs of methods of their own: a soft prompt and a merged adapter score as they were reported."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from optaware.cli._app import invoke
from optaware.errors import InputError

SCHEDULE = {"steps": 6, "batch_size": 4, "max_length": 64}
RUNS: dict[str, dict[str, Any]] = {
    "soft prompt": {
        "data": {"kind": "few-shot", "task": "super_ni/one", "per_class": 2, "fitness_per_class": 1, "test": 6},
        "method": {"name": "complementary-prompt-tuning", "proposer": "none", "virtual_tokens": 3, "lr": 0.5},
    },
    "merged adapter": {
        "data": {"kind": "mixture", "tasks": ["super_ni/one", "super_ni/two"], "train": 8, "dev": 0, "test": 6},
        "method": {"name": "seeded-lora", "seed_steps": 2, "rank": 2, "lr": 0.1},
    },
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    (root / "super_ni").mkdir()
    for name, labels in {"one": ("red", "blue"), "two": ("big", "tiny")}.items():
        rows = [{"id": f"{name}{n}", "input": f"{labels[n % 2]} {n}", "output": [labels[n % 2]]} for n in range(24)]
        (root / "super_ni" / f"{name}.json").write_text(json.dumps({"Definition": ["Name it."], "Instances": rows}))
    return root


def rows_of(path: Path) -> dict[str, list[float]]:
    return {row["example_id"]: row["scores"] for row in map(json.loads, path.read_text().splitlines())}


@pytest.mark.parametrize("what", RUNS)
def test_kept_weights_score_as_reported(
    what: str, tmp_path: Path, data_dir: Path, tiny_model_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = {
        "model": {"name": str(tiny_model_dir), "dtype": "fp32"},
        "schedule": SCHEDULE,
        "device": "cpu",
        **RUNS[what],
    }
    (tmp_path / "spec.json").write_text(json.dumps(spec))
    places = ["--store", str(tmp_path / "store"), "--data-dir", str(data_dir)]
    assert invoke(["train", str(tmp_path / "spec.json"), "--quiet", *places]) == 0
    (folder,) = (tmp_path / "store" / "runs").iterdir()
    scored = tmp_path / "scored.jsonl"
    asked = ["--task", "super_ni/one", "--max-length", "64", "--out", str(scored)]
    assert invoke(["eval", folder.name[:12], *asked, *places]) == 0
    reported, again = rows_of(folder / "predictions.jsonl"), rows_of(scored)
    common = [name for name in reported if name in again]
    assert len(common) == 6
    for name in common:
        assert again[name] == pytest.approx(reported[name], abs=1e-4)
    plain = tmp_path / "plain.jsonl"
    asked[-1] = str(plain)
    assert invoke(["eval", str(tiny_model_dir), "--dtype", "fp32", *asked, *places]) == 0
    bare = rows_of(plain)
    assert any(abs(bare[name][0] - reported[name][0]) > 1e-2 for name in common)
    capsys.readouterr()


def test_an_image_classifier_is_turned_down(tmp_path: Path, data_dir: Path) -> None:
    folder = tmp_path / "store" / "runs" / "0123456789ab-conv"
    folder.mkdir(parents=True)
    spec = {
        "version": 1,
        "model": {"name": "conv4-4", "dtype": "fp32"},
        "data": {"kind": "episodes"},
        "method": {"name": "gradient-harmonization"},
        "schedule": SCHEDULE,
    }
    (folder / "spec.json").write_text(json.dumps(spec))
    command = ["eval", "0123456789ab", "--task", "super_ni/one", "--store", str(tmp_path / "store")]
    with pytest.raises(InputError, match="weights-other-kind"):
        invoke([*command, "--data-dir", str(data_dir)])
