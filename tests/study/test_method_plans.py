"""The plans of the seeds for Seeded LoRA and prompt tuning: they bind as they are, and run whole at toy size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optaware._io import file_sha256, read_yaml
from optaware.cli._app import invoke

STUDIES = Path(__file__).parents[2] / "studies"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    (root / "super_ni").mkdir()
    for name, labels in {"one": ("red", "blue"), "two": ("big", "tiny"), "out": ("a", "b")}.items():
        rows = [{"id": f"{name}{n}", "input": f"{labels[n % 2]} {n}", "output": [labels[n % 2]]} for n in range(24)]
        text = json.dumps({"Definition": ["Name it."], "Instances": rows})
        (root / "super_ni" / f"{name}.json").write_text(text)
    return root


def toy(name: str, tmp_path: Path, model: Path, **changes: Any) -> Path:
    """The study file of the repository with a tiny model, few rows and few steps in it."""
    study = read_yaml(STUDIES / f"{name}.yaml")
    for key in ("plan", "binding"):
        if key in study:
            study[key] = str(STUDIES / study[key])
    study |= {"model": {"name": str(model), "dtype": "fp32"}, "device": "cpu", "seeds": [0, 1], "noise_seeds": []}
    study |= {"scales": {}, "repeat": False, **changes}
    path = tmp_path / f"{name}.yaml"
    path.write_text(json.dumps(study))
    return path


def results(store: Path) -> dict[str, Any]:
    (path,) = store.glob("plans/*/results.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


SCALES = [
    ("gradient_harmonization_plan", "small", 300 * 6, 21),
    ("gradient_harmonization_plan", "gpu-conflict", 2000 * 6, 21),
    ("seeded_lora_plan", "smoke", 3 * (6 + (3 + 1) * 6), 8),
    ("seeded_lora_plan", "small", 3 * (10 + (3 + 1) * 10), 25),
    ("seeded_lora_plan", "gpu", 3 * (40 + (8 + 2) * 40), 27),
    ("prompt_tuning_plan", "small", 3 * 20, 22),
    ("prompt_tuning_plan", "gpu", 3 * 150, 24),
    ("prompt_tuning_plan", "live", 3 * 150, 24),
]


@pytest.mark.parametrize(("name", "scale", "forwards", "runs"), SCALES)
def test_the_shipped_study_is_planned(
    name: str, scale: str, forwards: int, runs: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["plan", "run", "--study", str(STUDIES / f"{name}.yaml"), "--scale", scale, "--dry-run"]
    assert invoke([*command, "--store", str(tmp_path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["arms"][0]["forwards"] == forwards
    assert told["runs"] == runs
    said = " ".join(arm["changes"] for arm in told["arms"])
    wanted = {
        "gradient_harmonization_plan": ("attention=uniform", "explore=linear", "explore=exponential"),
        "seeded_lora_plan": ("seed_fraction=0.05", "seed_fraction=0.2", "merge=learned", "merge=validation"),
        "prompt_tuning_plan": ("llm=smollm2-135m-instruct", "proposer=evolutionary", "proposer=bayesian"),
    }
    for change in wanted[name]:
        assert change in said


def test_the_recording_is_the_one_that_the_study_names() -> None:
    baseline = read_yaml(STUDIES / "prompt_tuning_plan.yaml")["baseline"]
    assert file_sha256(STUDIES.parent / baseline["replay"]) == baseline["replay_sha256"]


def test_the_plan_of_gradient_harmonization_runs_whole(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (9, 4, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "own.npz", images=images)
    sizes = {"ways": 2, "queries": 2, "validation_classes": 2, "test_episodes": 4, "validation_episodes": 2}
    study = toy(
        "gradient_harmonization_plan",
        tmp_path,
        Path("conv4-3"),
        data={"kind": "episodes", "source": str(tmp_path / "own.npz"), "test_shots": [1, 2], **sizes},
        schedule={"steps": 2, "batch_size": 2, "eval_every": 2},
        primary="2-way-1-shot accuracy",
        seeds=[0],
    )
    store = tmp_path / "store"
    command = ["plan", "run", "--study", str(study), "--executor", "in-process", "--store", str(store)]
    assert invoke(command) == 0
    text = json.dumps(results(store))
    for metric in ("2-way-1-shot accuracy", "2-way-2-shot accuracy", "GCI"):
        assert metric in text
    assert len(list((store / "runs").glob("*/DONE"))) == 6


def test_the_plan_of_seeded_lora_runs_whole(tmp_path: Path, data_dir: Path, tiny_model_dir: Path) -> None:
    study = toy(
        "seeded_lora_plan",
        tmp_path,
        tiny_model_dir,
        data={
            "kind": "mixture",
            "tasks": ["super_ni/one", "super_ni/two"],
            "held_out": ["super_ni/out"],
            "train": 8,
            "dev": 4,
            "test": 6,
        },
        baseline={"seed_steps": 2, "lr": 1e-2, "rank": 2, "ineffective": 1, "weight_steps": 2},
        schedule={"steps": 2, "batch_size": 4, "max_length": 48},
        seeds=[0],
    )
    store = tmp_path / "store"
    command = ["plan", "run", "--study", str(study), "--executor", "in-process", "--store", str(store)]
    assert invoke([*command, "--data-dir", str(data_dir)]) == 0
    text = json.dumps(results(store))
    for metric in ("zero-shot accuracy", "mean task accuracy", "interference", "robustness"):
        assert metric in text
    # A seed adapter, two experts and an ineffective one for three fractions; the last three unseeded; one for all.
    # Merging, and the seed alone, train nothing more.
    assert len(list((store / "experts").iterdir())) == 3 * 4 + 3 + 1


def test_the_plan_of_prompt_tuning_runs_whole(tmp_path: Path, data_dir: Path, tiny_model_dir: Path) -> None:
    scripts = []
    for name in ("large", "small"):
        path = tmp_path / f"{name}.jsonl"
        path.write_text(json.dumps({"text": f"1. say {name}\n2. look at it"}) + "\n")
        scripts.append(str(path))
    binding = read_yaml(STUDIES / "prompt_tuning_binding.yaml")
    binding["baseline"]["llm"] = scripts[0]
    binding["entries"][0]["arms"][1]["changes"]["llm"] = scripts[1]
    binding["plan"]["source"] = str(STUDIES / "prompt_tuning_plan.jsonl")
    edited = tmp_path / "binding.yaml"
    edited.write_text(json.dumps(binding))
    study = toy(
        "prompt_tuning_plan",
        tmp_path,
        tiny_model_dir,
        binding=str(edited),
        data={"kind": "few-shot", "task": "super_ni/one", "per_class": 2, "fitness_per_class": 2, "test": 6},
        baseline={
            "llm": scripts[0],
            "proposer": "llm",
            "llm_provider": "scripted",
            "rounds": 1,
            "round_steps": 2,
            "search_asks": 1,
            "candidates": 1,
            "virtual_tokens": 3,
            "subspace": 2,
        },
        schedule={"steps": 8, "batch_size": 4, "max_length": 48},
    )
    store = tmp_path / "store"
    command = ["plan", "run", "--study", str(study), "--executor", "in-process", "--store", str(store)]
    assert invoke([*command, "--data-dir", str(data_dir)]) == 0
    assert '"loss"' in json.dumps(results(store))
    assert len(list((store / "runs").glob("*/DONE"))) == 7 * 2


@pytest.mark.parametrize(
    ("seed", "method", "runs"),
    [
        ("000", "mezo", 19),
        ("001", "complementary-prompt-tuning", 5),
        ("002", "gradient-harmonization", 9),
        ("003", "seeded-lora", 5),
    ],
)
def test_a_published_plan_runs_from_its_page_and_its_methods_name(seed, method, runs, tmp_path, capsys):
    found = sorted((Path(__file__).parents[3] / "shared" / "seeds").glob(f"{seed}_*"))
    if not found:
        pytest.skip("needs the published plan")
    told = ["plan", "run", str(found[0]), "--method", method, "--scale", "smoke", "--dry-run", "--json"]
    assert invoke([*told, "--store", str(tmp_path)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["runs"], shown["left"]) == (runs, runs)
    assert shown["arms"][0]["arm"] == "baseline"
