"""Seeded LoRA against its controls on Super-NaturalInstructions, with paired seeds.

    python benchmarks/seeded_lora.py --data-dir DATA [--model NAME_OR_FOLDER] [--scale smoke|full] [--only WORDS]
        [--workers N] [--gpus 0,1] [--deadline-s S] [--seeds 0 1 2] [--store FOLDER] [--out FILE]

`full` (a GPU): 8 tasks, 5 held-out ones, 320 training rows a task, 15 arms, arm by arm. `smoke` (2 CPU cores, some
minutes): 3 short tasks, 4 arms, few steps; it shows that everything runs and says nothing about the method. Runs are
processes of their own that share experts through the store; the same command goes on where it was stopped, and with the
store of `optaware plan run --study studies/seeded_lora_plan.yaml --scale gpu` it reads what that has done. The result
file is written whatever is done, and says what is missing. Learning rate, steps and rank were fixed beforehand; merging
weights are chosen on dev rows; test rows are scored once a run.

Each run gives a row. The last rows are paired differences over seeds with 95 % t intervals: seeded uniform merging
(10 %) less every other arm, in each metric that both have.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from typing import Any

from _result import write_result
from _runs import add_options, do_runs, paired
from optaware._io import read_json
from optaware.records import ModelRef, RunSpec, Schedule, SeededLoRA, TaskMixture
from optaware.store import Store

MODEL = "smollm2-135m-instruct"
BASELINE = "seeded 10%, uniform"
METRICS = ("mean task accuracy", "interference", "zero-shot accuracy", "robustness")
_NI = "super_ni/task"
TASKS = {
    "full": tuple(_NI + number for number in ("115", "1289", "1612", "1623", "274", "363", "834", "875")),
    "smoke": tuple(_NI + number for number in ("1289", "363", "834")),
}
HELD_OUT = {
    "full": tuple(_NI + number for number in ("843", "1529", "889", "879", "881")),
    "smoke": (_NI + "879",),
}
SIZES: dict[str, dict[str, Any]] = {
    "full": {"train": 320, "dev": 32, "test": 100},
    "smoke": {"train": 40, "dev": 4, "test": 16, "prompt": "input"},
}
SCHEDULES = {
    "full": Schedule(steps=40, batch_size=32, max_length=256),
    "smoke": Schedule(steps=6, batch_size=4, max_length=48),
}


def arms(scale: str) -> dict[str, SeededLoRA]:
    """The method, its ablations (seed fraction, merging) and its controls, by name."""
    size: dict[str, Any] = {"lr": 1e-3, "rank": 8, "alpha": 16.0}
    size |= {"seed_steps": 40} if scale == "full" else {"seed_steps": 6, "weight_steps": 4, "scales": (1.0, 2.0)}
    noisy = {"ineffective": 2 if scale == "full" else 1}
    made = {
        "seeded 10%, uniform": SeededLoRA(**size, **noisy),
        "random init, uniform": SeededLoRA(start="random-init", **size, **noisy),
        "seed only": SeededLoRA(experts="seed-only", **size),
        "seeded 10%, learned": SeededLoRA(merge="learned", **size, **noisy),
    }
    if scale == "full":
        made |= {
            "random init, uniform, total budget": SeededLoRA(start="random-init", budget="total", **size),
            "multitask": SeededLoRA(experts="multitask", **size),
            "seeded 5%, uniform": SeededLoRA(seed_fraction=0.05, **size, **noisy),
            "seeded 20%, uniform": SeededLoRA(seed_fraction=0.2, **size, **noisy),
            "seeded 10%, validation": SeededLoRA(merge="validation", **size, **noisy),
            "seeded 10%, scaled": SeededLoRA(merge="scaled", **size),
            "seeded 10%, greedy soup": SeededLoRA(merge="greedy-soup", **size),
            "seeded 10%, TIES": SeededLoRA(merge="ties", **size),
            "seeded 10%, DARE": SeededLoRA(merge="dare", **size),
            "same init, uniform": SeededLoRA(start="same-init", **size),
            "random init, scaled": SeededLoRA(start="random-init", merge="scaled", **size),
        }
    return made


def specs(
    scale: str, model: str, dtype: Any, seeds: Sequence[int], device: str, only: Sequence[str] | None = None
) -> dict[tuple[str, int], RunSpec]:
    """All runs, by arm and seed; `only`: of the arms whose name has one of these words."""
    data = TaskMixture(tasks=TASKS[scale], held_out=HELD_OUT[scale], **SIZES[scale])
    return {
        (name, seed): RunSpec(
            model=ModelRef(name=model, dtype=dtype),
            data=data,
            method=method,
            schedule=SCHEDULES[scale],
            seed=seed,
            device=device,
            keep_weights=False,
        )
        for name, method in arms(scale).items()
        for seed in seeds
        if only is None or any(word in name for word in only)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, workers=2)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--dtype", default=None, help="default: bf16 for full, fp32 for smoke")
    parser.add_argument("--scale", choices=("smoke", "full"), default="smoke")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    seeds = given.seeds or ((0, 1, 2) if given.scale == "full" else (0,))
    dtype = given.dtype or ("bf16" if given.scale == "full" else "fp32")
    runs = specs(given.scale, given.model, dtype, seeds, given.device, given.only)
    store, started = Store(given.store), time.monotonic()
    left = do_runs(runs, given)
    wall = time.monotonic() - started
    rows: list[dict[str, Any]] = []
    figures: dict[str, dict[tuple[str, int], float]] = {}
    for (name, seed), spec in runs.items():
        if (name, seed) in left:
            rows.append({"case": name, "variant": f"seed {seed}", "missing": left[name, seed]})
            continue
        result = store.run_folder(spec).read_result()
        merge = read_json(store.run_folder(spec).path / "merge.json")
        rows.append({"case": name, "variant": f"seed {seed}", "steps": result.steps, **result.metrics})
        rows[-1]["weights"] = None if merge["weights"] is None else " ".join(f"{w:.3f}" for w in merge["weights"])
        for metric, value in result.metrics.items():
            if value is not None:
                figures.setdefault(metric, {})[name, seed] = value
    for name in dict.fromkeys(name for name, _ in runs):
        for metric in METRICS:
            change = paired(figures.get(metric, {}), BASELINE, name, seeds)
            if name != BASELINE and change is not None:
                rows.append({"case": f"{BASELINE} - {name}", "variant": metric, **change})
    for row in rows:
        print(row)
    name = "seeded_lora" if given.scale == "full" else "seeded_lora_smoke"
    path = write_result(
        name,
        rows,
        out=given.out,
        notes=[f"{wall:.0f} s of this call, for what was left to do; accuracies are shares, differences are points"],
        settings={
            "scale": given.scale,
            "workers": given.workers,
            "run": next(iter(runs.values())).to_json(),
            "seeds": list(seeds),
            "missing": len(left),
        },
    )
    print(path)


if __name__ == "__main__":
    main()
