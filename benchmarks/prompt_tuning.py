"""Complementary prompt tuning against its controls at one budget, with paired seeds.

    python benchmarks/prompt_tuning.py --data-dir DATA [--model NAME_OR_FOLDER] [--scale smoke|record|full]
        [--workers N] [--seeds 0 1 2] [--recording FILE] [--store FOLDER] [--out FILE]

`full` (a GPU): SST-2 and TREC, K = 16 of each label, a budget of 150 gradient steps. Arms: hybrid with two sizes of LLM
(SmolLM2-135M-Instruct, live; Qwen2.5-Coder-1.5B-Instruct, replayed from a recording), evolutionary,
Bayesian, CMA-ES, perturbation, random restart; single start, multi-start; LLM only. `record` (CPU): the hybrid with
the 1.5B model on short trajectories, to make that recording. `smoke`: two arms, a few steps.

Rates and sizes were fixed beforehand; candidates and starts are compared on fitness rows; test rows are scored once a
run. The last rows are paired differences to multi-start with 95 % t intervals over seeds.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _result import RESULTS, write_result
from optaware._io import file_sha256, read_jsonl, write_json, write_jsonl
from optaware.execute import Event, Job, Subprocess
from optaware.records import ComplementaryPromptTuning, FewShot, ModelRef, RunSpec, Schedule, short_id
from optaware.store import Store

MODEL = "smollm2-135m-instruct"
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


def arms(scale: str, task: str, llm: str, recording: Path) -> dict[str, ComplementaryPromptTuning]:
    """Arms by name; the replayed one where the recording has the task."""
    size = {"lr": 0.05, "virtual_tokens": 8, **SIZE[scale]}
    if scale == "record":
        return {"LLM 1.5B": ComplementaryPromptTuning(llm=LARGE, **size)}
    made = {"multi-start": ComplementaryPromptTuning(search="multi-start", proposer="none", **size)}
    if scale == "smoke":
        return {
            **made,
            "evolutionary": ComplementaryPromptTuning(proposer="evolutionary", **{**size, "search_asks": 1}),
        }
    if recording.exists() and any(row["task"] == task for row in read_jsonl(recording)):
        replay = {"proposer": "replay", "replay": str(recording), "replay_sha256": file_sha256(recording)}
        made["LLM 1.5B (replayed)"] = ComplementaryPromptTuning(**replay, **size)
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


def do(runs: dict[Any, RunSpec], store: Store, data_dir: Path, workers: int) -> set[Any]:
    """Do what is not done; returns the runs that failed (a missing library, say)."""
    jobs = []
    for key, spec in runs.items():
        folder = store.run_folder(spec)
        if not folder.is_done:
            write_json(folder.spec, spec.to_json())
            command = ("train", str(folder.spec), "--store", str(store.root), "--data-dir", str(data_dir), "--quiet")
            jobs.append(Job(short_id(spec), str(key), command, folder.log))

    def show(event: Event) -> None:
        if event.kind == "end" and event.outcome is not None:
            print(f"{event.job.title}: {event.outcome.state} {event.outcome.detail}", flush=True)

    Subprocess(workers, lambda: False).run(jobs, show)
    return {key for key, spec in runs.items() if not store.run_folder(spec).is_done}


def compared(values: dict[Any, float], task: str, arm: str, seeds: Sequence[int]) -> dict[str, Any]:
    """Mean paired difference to multi-start over seeds, in points, with its interval."""
    from optaware.stats import mean_interval

    changes = [100 * (values[task, arm, seed] - values[task, "multi-start", seed]) for seed in seeds]
    row: dict[str, Any] = {"difference_points": statistics.fmean(changes), "seeds": len(seeds)}
    if len(changes) > 1:
        interval = mean_interval(changes)
        row |= {"low_points": interval.low, "high_points": interval.high, "interval": interval.method}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--llm", default=None, help="the small chat model; default: that of --model")
    parser.add_argument("--scale", choices=("smoke", "record", "full"), default="smoke")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--recording", type=Path, default=RECORDING)
    parser.add_argument("--store", type=Path, default=Path("benchmark-store"))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    store = Store(given.store)
    runs = {
        (task, name, seed): RunSpec(
            model=ModelRef(name=given.model, dtype="fp32"),
            data=FewShot(task=task, prompt="default" if task == "sst2" else "input", **DATA[given.scale]),
            method=method,
            schedule=SCHEDULES[given.scale],
            seed=seed,
            keep_weights=False,
        )
        for task in TASKS[given.scale]
        for seed in given.seeds
        for name, method in arms(given.scale, task, given.llm or given.model, given.recording.resolve()).items()
    }
    left = do(runs, store, given.data_dir, given.workers)
    if given.scale == "record":
        kept = [spec for key, spec in runs.items() if key not in left]
        rows = [row for spec in kept for row in read_jsonl(store.run_folder(spec).path / "proposals.jsonl")]
        fields = ("task", "seed", "round", "llm", "texts", "unusable", "candidates")
        write_jsonl(given.recording, [{field: row[field] for field in fields} for row in rows])
        print(given.recording)
        return
    rows = []
    values: dict[Any, float] = {}
    for (task, name, seed), spec in runs.items():
        if (task, name, seed) in left:
            rows.append({"case": task, "variant": f"{name}, seed {seed}", "failed": True})
            continue
        result = store.run_folder(spec).read_result()
        values[task, name, seed] = result.test.accuracy
        rows.append({"case": task, "variant": f"{name}, seed {seed}", "steps": result.steps, **result.metrics})
    for task in TASKS[given.scale]:
        for name in dict.fromkeys(name for _, name, _ in runs):
            if all((task, each, seed) in values for each in (name, "multi-start") for seed in given.seeds):
                mean = statistics.fmean(values[task, name, seed] for seed in given.seeds)
                row = {"case": task, "variant": f"{name} - multi-start", "mean_accuracy": mean}
                rows.append({**row, **compared(values, task, name, given.seeds)})
    for row in rows:
        print(row)
    settings = {"scale": given.scale, "seeds": given.seeds, "run": next(iter(runs.values())).to_json()}
    name = "prompt_tuning" if given.scale == "full" else "prompt_tuning_smoke"
    print(write_result(name, rows, out=given.out, settings=settings))


if __name__ == "__main__":
    main()
