"""Complementary prompt tuning against its controls at one budget, with paired seeds.

    python benchmarks/prompt_tuning.py --data-dir DATA [--model NAME_OR_FOLDER] [--scale smoke|record|full]
        [--only WORDS] [--tasks NAMES] [--workers N] [--gpus 0,1] [--deadline-s S] [--seeds 0 1 2] [--recording FILE]
        [--store FOLDER] [--out FILE]

`full` (a GPU): SST-2 and TREC, K = 16 of each label, a budget of 150 gradient steps. Arms: hybrid with two sizes of LLM
(SmolLM2-135M-Instruct and Qwen2.5-Coder-1.5B-Instruct), both replayed from one recording, and the small one live;
evolutionary, Bayesian, CMA-ES, perturbation, random restart; single start, multi-start; LLM only. `record` (CPU): the
hybrid with each LLM on short trajectories, to make that recording or add to it. `smoke`: two arms, a few steps.

Rates and sizes were fixed beforehand; candidates and starts are compared on fitness rows; test rows are scored once a
run. The last rows are paired differences to multi-start with 95 % t intervals over seeds. The same command goes on
where it was stopped; the result file is written whatever is done, and says what is missing. With the store of
`optaware plan run --study studies/prompt_tuning_plan.yaml --scale gpu` it reads what that has done.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _result import RESULTS, write_result
from _runs import add_options, do_runs, paired
from optaware._io import file_sha256, read_jsonl, write_jsonl
from optaware.records import ComplementaryPromptTuning, FewShot, ModelRef, RunSpec, Schedule
from optaware.store import Store

MODEL = "smollm2-135m-instruct"
CONTROL = "multi-start"
PROPOSALS = "proposals.jsonl"
LARGE = "qwen2.5-coder-1.5b-instruct"
RECORDING = RESULTS / "prompt_tuning_proposals.jsonl"
TASKS = {
    "full": ("sst2", "super_ni/task1289"),
    "record": ("sst2", "super_ni/task1289"),
    "smoke": ("sst2",),
}
DATA: dict[str, dict[str, Any]] = {
    "full": {"per_class": 16, "fitness_per_class": 16, "test": 400},
    "record": {"per_class": 4, "fitness_per_class": 2, "test": 1},
    "smoke": {"per_class": 4, "fitness_per_class": 4, "test": 32},
}
SCHEDULES = {
    "full": Schedule(steps=150, batch_size=16, max_length=128),
    "record": Schedule(steps=16, batch_size=8, max_length=64),
    "smoke": Schedule(steps=12, batch_size=8, max_length=64),
}
SIZE: dict[str, dict[str, Any]] = {
    "full": {"rounds": 3, "round_steps": 10},
    "record": {"rounds": 3, "round_steps": 2, "candidates": 2},
    "smoke": {"rounds": 1, "round_steps": 2, "candidates": 2, "starts": 2},
}


def arms(
    scale: str, task: str, llm: str, recording: Path, recorded: Sequence[str] = (LARGE, MODEL)
) -> dict[str, ComplementaryPromptTuning]:
    """Arms by name; the replayed one where the recording has the task."""
    size: dict[str, Any] = {"lr": 0.05, "virtual_tokens": 8, **SIZE[scale]}
    if scale == "record":
        return {name: ComplementaryPromptTuning(llm=name, **size) for name in recorded}
    rows = read_jsonl(recording) if recording.exists() else []
    if scale == "full" and rows:  # said in every arm, as in the plan's study file, so that the two share their runs
        size |= {"replay": str(recording), "replay_sha256": file_sha256(recording)}
    made = {"multi-start": ComplementaryPromptTuning(search="multi-start", proposer="none", **size)}
    if scale == "smoke":
        return {
            **made,
            "evolutionary": ComplementaryPromptTuning(proposer="evolutionary", **{**size, "search_asks": 1}),
        }
    for label, name in (("LLM 1.5B, replayed", LARGE), ("LLM 135M, replayed", MODEL)):
        if any(row["task"] == task and row["llm"] == name for row in rows):
            made[label] = ComplementaryPromptTuning(proposer="replay", llm=name, **size)
    return made | {
        "LLM 135M": ComplementaryPromptTuning(llm=llm, **size),
        "LLM 135M only": ComplementaryPromptTuning(llm=llm, search="proposals-only", **size),
        "evolutionary": ComplementaryPromptTuning(proposer="evolutionary", **size),
        "Bayesian": ComplementaryPromptTuning(proposer="bayesian", **size),
        "CMA-ES": ComplementaryPromptTuning(proposer="cma-es", **size),
        "perturbation": ComplementaryPromptTuning(proposer="perturbation", **size),
        "random restart": ComplementaryPromptTuning(proposer="random-tokens", **size),
        "single start": ComplementaryPromptTuning(proposer="none", **size),
    }


def add(recording: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Put rounds into a recording; of a round that is there already the new one is kept."""
    fields = ("task", "seed", "round", "llm", "texts", "unusable", "candidates")
    held = read_jsonl(recording) if recording.exists() else []
    merged = {
        (row["llm"], row["task"], row["seed"], row["round"]): {field: row[field] for field in fields}
        for row in (*held, *rows)
    }
    write_jsonl(recording, [merged[key] for key in sorted(merged)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, workers=1)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--llm", default=None, help="the small chat model; default: that of --model")
    parser.add_argument("--scale", choices=("smoke", "record", "full"), default="smoke")
    parser.add_argument("--tasks", nargs="+", default=None, help="default: all of the scale")
    parser.add_argument("--recording", type=Path, default=RECORDING)
    parser.add_argument("--record", nargs="+", default=[LARGE, MODEL], help="which LLMs `record` asks")
    given = parser.parse_args()
    seeds = given.seeds or [0, 1, 2]
    store, tasks = Store(given.store), given.tasks or TASKS[given.scale]
    # As it is named from here, so that the same run has the same id on another machine.
    recording = Path(os.path.relpath(given.recording))
    runs = {
        ((task, name), seed): RunSpec(
            model=ModelRef(name=given.model, dtype="fp32"),
            data=FewShot(task=task, prompt="default" if task == "sst2" else "input", **DATA[given.scale]),
            method=method,
            schedule=SCHEDULES[given.scale],
            seed=seed,
            keep_weights=False,
        )
        for task in tasks
        for name, method in arms(given.scale, task, given.llm or given.model, recording, given.record).items()
        for seed in seeds
        if given.only is None or any(word in name for word in given.only)
    }
    left = do_runs(runs, given)
    if given.scale == "record":
        kept = [spec for key, spec in runs.items() if key not in left]
        add(given.recording, [row for spec in kept for row in read_jsonl(store.run_folder(spec).path / PROPOSALS)])
        print(given.recording)
        return
    rows: list[dict[str, Any]] = []
    values: dict[str, dict[Any, float]] = {"accuracy": {}, "loss": {}}
    for ((task, name), seed), spec in runs.items():
        row = {"case": task, "variant": f"{name}, seed {seed}"}
        if ((task, name), seed) in left:
            rows.append({**row, "missing": left[(task, name), seed]})
            continue
        result = store.run_folder(spec).read_result()
        values["accuracy"][(task, name), seed] = result.test.accuracy
        if result.test.loss is not None:
            values["loss"][(task, name), seed] = result.test.loss
        rows.append({**row, "steps": result.steps, "train_s": result.train_s, **result.metrics})
    for task, name in dict.fromkeys(arm for arm, _ in runs):
        change = paired(values["accuracy"], (task, name), (task, CONTROL), seeds)
        if name != CONTROL and change is not None:
            rows.append({"case": task, "variant": f"{name} - {CONTROL}", **change})
    for row in rows:
        print(row)
    settings = {"scale": given.scale, "seeds": seeds, "missing": len(left), "run": next(iter(runs.values())).to_json()}
    name = "prompt_tuning" if given.scale == "full" else "prompt_tuning_smoke"
    print(write_result(name, rows, out=given.out, settings=settings))


if __name__ == "__main__":
    main()
