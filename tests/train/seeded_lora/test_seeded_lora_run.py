"""The whole method at toy size: experts shared between runs, metrics by hand, stop and resume, PEFT."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from optaware.errors import InputError, StoppedBySignal
from optaware.records import ModelRef, RunResult, RunSpec, Schedule, SeededLoRA, TaskMixture, short_id
from optaware.store import RunFolder, Store
from optaware.train.merging import read_adapter
from optaware.train.methods.seeded_lora import expert_specs, run, train_experts

TASKS = ("super_ni/colour", "super_ni/size", "super_ni/shape")


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    (root / "super_ni").mkdir()
    words = {
        "colour": ("red", "blue"),
        "size": ("big", "tiny"),
        "shape": ("round", "flat", "long"),
        "other": ("a", "b"),
    }
    for name, labels in words.items():
        rows = [
            {"id": f"{name}-{n}", "input": f"{labels[n % len(labels)]} {n}", "output": [labels[n % len(labels)]]}
            for n in range(40)
        ]
        text = json.dumps({"Definition": [f"Name the {name}."], "Instances": rows})
        (root / "super_ni" / f"{name}.json").write_text(text)
    return root


@pytest.fixture
def make(tiny_model_dir: Path) -> Any:
    def spec(data: dict[str, Any] | None = None, steps: int = 3, keep: bool = False, **method: Any) -> RunSpec:
        rows: dict[str, Any] = {"tasks": TASKS, "held_out": ("super_ni/other",), "train": 12, "dev": 4, "test": 6}
        options: dict[str, Any] = {"seed_steps": 2, "lr": 1e-2, "rank": 2, "alpha": 4, **method}
        return RunSpec(
            model=ModelRef(name=str(tiny_model_dir), dtype="fp32"),
            data=TaskMixture(**{**rows, **(data or {})}),
            method=SeededLoRA(**options),
            schedule=Schedule(steps=steps, batch_size=4, max_length=48),
            keep_weights=keep,
            device="cpu",
        )

    return spec


def do(spec: RunSpec, root: Path, data_dir: Path) -> RunResult:
    folder = Store(root).run_folder(spec)
    folder.path.mkdir(parents=True, exist_ok=True)
    return run(spec, folder, data_dir=data_dir, on_event=lambda event: None, should_stop=lambda: False)


def test_figures_follow_from_the_accuracies_on_disk(make: Any, tmp_path: Path, data_dir: Path) -> None:
    spec = make(ineffective=1, keep=True)
    result = do(spec, tmp_path, data_dir)
    merge = json.loads((Store(tmp_path).run_folder(spec).path / "merge.json").read_text())
    merged, own = merge["accuracy"]["merged"], merge["accuracy"]["own expert"]
    mean = sum(merged[task] for task in TASKS) / 3
    assert result.metrics["mean task accuracy"] == pytest.approx(mean)
    assert result.metrics["zero-shot accuracy"] == merged["super_ni/other"]
    assert result.metrics["interference"] == pytest.approx(sum(own[task] - merged[task] for task in TASKS) / 3)
    noisy = merge["accuracy"]["merged with ineffective experts"]
    assert result.metrics["robustness"] == pytest.approx(sum(noisy.values()) / 3)
    assert result.metrics["ineffective drop"] == pytest.approx(mean - sum(noisy.values()) / 3)
    assert result.metrics["identity error"] is not None
    assert result.metrics["identity error"] < 1e-5
    assert merge["weights"] == pytest.approx([1 / 3] * 3)
    assert result.steps == 2 + 3 * 3 + 3  # seed, three experts, one ineffective
    predictions = [json.loads(line) for line in Store(tmp_path).run_folder(spec).predictions.read_text().splitlines()]
    assert len(predictions) == 18
    assert sum(p["predicted"] == p["label"] for p in predictions) / 18 == pytest.approx(mean)


def test_arms_that_differ_in_merging_share_their_experts(make: Any, tmp_path: Path, data_dir: Path) -> None:
    do(make(), tmp_path, data_dir)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "experts").glob("*/DONE")}
    folders = sorted(path.name for path in (tmp_path / "experts").iterdir())
    assert len(folders) == 4
    for merge in ("scaled", "learned", "validation", "greedy-soup", "ties", "dare"):
        result = do(make(merge=merge, weight_steps=2), tmp_path, data_dir)
        assert result.metrics["identity error"] is not None
        assert result.metrics["identity error"] < 1e-5
    assert sorted(path.name for path in (tmp_path / "experts").iterdir()) == folders
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "experts").glob("*/DONE")} == before


def test_a_seeded_expert_starts_at_the_seed_and_an_unseeded_one_at_its_own_draw(
    make: Any, tmp_path: Path, data_dir: Path
) -> None:
    spec = make(steps=0)
    do(spec, tmp_path, data_dir)
    adapters = {path.name: read_adapter(path / "adapter") for path in (tmp_path / "experts").iterdir()}
    seed = short_id(expert_specs(spec).seed)  # type: ignore[arg-type]
    start = next(adapter for name, adapter in adapters.items() if name.startswith(seed))
    assert len(adapters) == 4
    for adapter in adapters.values():
        for name, layer in adapter.layers.items():
            assert torch.equal(layer.a, start.layers[name].a)
            assert torch.equal(layer.b, start.layers[name].b)
    assert any(bool(layer.b.any()) for layer in start.layers.values())


@pytest.mark.parametrize(
    ("method", "steps"),
    [
        ({"start": "random-init"}, 5),
        ({"start": "same-init"}, 5),
        ({"start": "random-init", "budget": "total"}, 4),
        ({"start": "seeded"}, 3),
    ],
)
def test_budgets(make: Any, method: dict[str, Any], steps: int) -> None:
    needed = expert_specs(make(**method))
    assert {spec.steps for spec in needed.experts.values()} == {steps}
    inits = {(spec.parent, spec.init) for spec in needed.experts.values()}
    assert len(inits) == (3 if method["start"] == "random-init" else 1)


def test_controls(make: Any, tmp_path: Path, data_dir: Path) -> None:
    multitask = do(make(experts="multitask"), tmp_path, data_dir)
    assert multitask.steps == 2 + 3 * 3
    seed_only = do(make(experts="seed-only"), tmp_path, data_dir)
    assert seed_only.steps == 2
    assert "interference" not in seed_only.metrics


def test_a_task_added_later_trains_one_expert(make: Any, tmp_path: Path, data_dir: Path) -> None:
    first = {"tasks": TASKS[:2], "held_out": ()}
    do(make(first), tmp_path, data_dir)
    before = {path.name for path in (tmp_path / "experts").iterdir()}
    do(make({"tasks": TASKS, "pool": TASKS[:2], "held_out": ()}), tmp_path, data_dir)
    added = {path.name for path in (tmp_path / "experts").iterdir()} - before
    assert len(added) == 1
    assert "shape" in added.pop()


def test_a_stopped_run_goes_on_to_the_same_bits(make: Any, tmp_path: Path, data_dir: Path) -> None:
    spec = make()
    whole = do(spec, tmp_path / "whole", data_dir)
    folder = Store(tmp_path / "stopped").run_folder(spec)
    folder.path.mkdir(parents=True)
    for limit in (1, 3, 4):
        asked: list[int] = []

        def stop(asked: list[int] = asked, limit: int = limit) -> bool:
            asked.append(1)
            return len(asked) > limit

        with pytest.raises(StoppedBySignal):
            run(spec, folder, data_dir=data_dir, on_event=lambda event: None, should_stop=stop)
    again = do(spec, tmp_path / "stopped", data_dir)
    assert again.metrics == whole.metrics
    for path in (tmp_path / "whole" / "experts").iterdir():
        twin = read_adapter(tmp_path / "stopped" / "experts" / path.name / "adapter")
        for name, layer in read_adapter(path / "adapter").layers.items():
            assert torch.equal(layer.b, twin.layers[name].b)


def test_the_merged_adapter_in_peft_gives_the_outputs_that_were_scored(
    make: Any, tmp_path: Path, data_dir: Path, tiny_model_dir: Path
) -> None:
    from peft import PeftModel

    from optaware.models import load_model
    from optaware.train.merging import applied

    for merge in ("uniform", "ties"):
        spec = make(keep=True, merge=merge)
        do(spec, tmp_path, data_dir)
        weights = Store(tmp_path).run_folder(spec).path / "weights"
        ids = torch.arange(3, 20)[None]
        base = load_model(ModelRef(name=str(tiny_model_dir), dtype="fp32"), device="cpu").model
        with torch.no_grad():
            bare = base(ids).logits
            with applied(base, read_adapter(weights)):
                ours = base(ids).logits
            with warnings.catch_warnings():  # PEFT 0.21 asks transformers 5.23 by a name that is on its way out
                warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
                theirs = PeftModel.from_pretrained(base, str(weights)).eval()(ids).logits
        assert torch.allclose(ours, theirs, atol=1e-4)
        assert not torch.allclose(ours, bare, atol=1e-3)


def test_experts_can_be_trained_beforehand(make: Any, tmp_path: Path, data_dir: Path) -> None:
    spec = make()
    folder = RunFolder(tmp_path / "runs" / "x")
    folder.path.mkdir(parents=True)
    assert train_experts(spec, folder, data_dir=data_dir) == 4
    assert train_experts(spec, folder, data_dir=data_dir) == 0


def test_faults(make: Any, tmp_path: Path, data_dir: Path) -> None:
    with pytest.raises(InputError, match="validation-empty"):
        expert_specs(make({"dev": 0}, merge="learned"))
    with pytest.raises(InputError, match="too-many-ineffective"):
        expert_specs(make(ineffective=4))
    (data_dir / "super_ni" / "one.json").write_text(
        json.dumps(
            {"Definition": ["x"], "Instances": [{"id": str(n), "input": "x", "output": ["y"]} for n in range(9)]}
        )
    )
    with pytest.raises(InputError, match="task-one-label"):
        do(make({"tasks": (*TASKS, "super_ni/one")}), tmp_path, data_dir)
    with pytest.raises(InputError, match="too-few-rows") as caught:
        do(make({"train": 4000}), tmp_path, data_dir)
    assert {problem.where for problem in caught.value.problems} == set(TASKS)
