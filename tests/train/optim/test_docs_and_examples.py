"""The code of docs/trainers.md and the example scripts run."""

from __future__ import annotations

import importlib.util
import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

torch.set_num_threads(1)
ROOT = Path(__file__).parents[3]


def load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_code_of_the_page_runs(tiny_model_dir: Path, tmp_path: Path) -> None:
    ids = torch.randint(0, 250, (24, 9), generator=torch.Generator().manual_seed(0))
    names = {
        "MODEL": str(tiny_model_dir),
        "OUT": str(tmp_path),
        "BATCHES": ids.split(2),
        "ROWS": [{"input_ids": row, "labels": row} for row in ids],
        "QUIET": {"report_to": [], "use_cpu": True, "disable_tqdm": True, "save_strategy": "no"},
    }
    texts = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "trainers.md").read_text("utf-8"), flags=re.S)
    assert len(texts) == 3
    for text in texts:
        exec(compile(text, "docs/trainers.md", "exec"), names)
    assert (tmp_path / "model.safetensors").exists()
    assert names["optimizer"].steps_done == 12  # type: ignore[attr-defined]
    assert names["again"].step == 12  # type: ignore[attr-defined]
    assert names["trainer"].state.global_step == 6  # type: ignore[attr-defined]


def test_the_trainer_example_learns(tiny_model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = {0: ["dull", "bad", "poor"], 1: ["fine", "good", "warm"]}
    for split, count in (("train", 60), ("validation", 20)):
        lines = [
            json.dumps(
                {"sentence": f"a {words[at % 2][at % 3]} film , number {at} of {split} ", "label": at % 2, "idx": at}
            )
            for at in range(count)
        ]
        path = tmp_path / "data" / "sst2" / f"{split}.jsonl"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines) + "\n", "utf-8")
    sizes = ["--steps", "4", "--train", "24", "--test", "10", "--batch-size", "4", "--dtype", "fp32"]
    places = ["--model", str(tiny_model_dir), "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")]
    accuracy = load("trainer_sst2").main([*sizes, *places])
    assert 0 <= accuracy <= 1
    assert "test accuracy on 10 rows" in capsys.readouterr().out
    assert (tmp_path / "out" / "checkpoint-4" / "model.safetensors").exists()


@pytest.mark.parametrize("rank", [0, 2])
def test_the_trl_example_runs(tiny_model_dir: Path, tmp_path: Path, rank: int) -> None:
    rows = [{"prompt": f"number {at}: ", "completion": str(at * at)} for at in range(24)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning)
        history = load("sft_trl").main(
            ["--model", str(tiny_model_dir), "--rows", str(tmp_path / "rows.jsonl"), "--out", str(tmp_path / "out"),
             "--steps", "3", "--accumulation", "2", "--lora-rank", str(rank)]
        )  # fmt: skip
    assert history[0]["projected_gradient"] > 0
    file = "adapter_model.safetensors" if rank else "model.safetensors"
    assert (tmp_path / "out" / file).exists()
