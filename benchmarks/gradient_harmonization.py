"""Gradient harmonization on Omniglot: MAML's published setting, the ablation, and aggregators beside it.

    python benchmarks/gradient_harmonization.py --data-dir DATA [--scale full|small|toy] [--only WORDS] [--workers N]
        [--gpus 0,1] [--deadline-s S] [--seeds 0 1 2] [--store FOLDER] [--out FILE]

Arms on paired seeds: the baseline (layer-wise softmax of cosine scores, temperature 0.1, norm kept, cosine schedule);
the attention operator removed, which is MAML; the linear and the exponential schedule; the scores as published (dot
product, temperature 1); gradient agreement, PCGrad and UPGrad. All of it on clean tasks, and on a mix in which half of
the training tasks have random query labels. `full` also trains MAML with the published network, 1- and 5-shot.

With the same --store it reads the runs that `optaware plan run --study studies/gradient_harmonization_plan.yaml
--scale gpu` (and `gpu-conflict`) has done. Nothing is chosen on test classes: checkpoints by validation accuracy, all
settings fixed beforehand. The result file is written whatever is done, and says what is missing.
"""

from __future__ import annotations

import argparse
import time
from itertools import product
from typing import Any

from _result import write_result
from _runs import add_options, do_runs, paired
from optaware.records import RunSpec, parse_record
from optaware.store import Store

HARMONIZED = {"score": "cosine", "temperature": 0.1, "rescale": True}
BASELINE = "harmonized"
ARMS: dict[str, dict[str, Any]] = {
    BASELINE: HARMONIZED,
    "attention removed": {**HARMONIZED, "attention": "uniform"},
    "linear schedule": {**HARMONIZED, "explore": "linear"},
    "exponential schedule": {**HARMONIZED, "explore": "exponential"},
    "as published (dot, temperature 1)": {},
    "gradient agreement": {"aggregator": "agreement"},
    "PCGrad": {"aggregator": "pcgrad"},
    "UPGrad": {"aggregator": "upgrad"},
}
SCALES: dict[str, dict[str, Any]] = {
    "full": {"network": "conv4-64", "tasks": 16, "steps": 2000, "maml": {1: 10000, 5: 6000}, "episodes": 600},
    "small": {"network": "conv4-32", "tasks": 8, "steps": 300, "maml": {}, "episodes": 600},
    "toy": {"network": "conv4-4", "tasks": 3, "steps": 4, "maml": {1: 6}, "episodes": 10},
}
"""`full`: a GPU. `small`: two CPU cores. `toy`: seconds, to see it run."""
METRICS = ("5-way-1-shot accuracy", "5-way-5-shot accuracy", "GCI", "nGCI", "GCI after", "nGCI after")
_SHARES = METRICS[:2]

Key = tuple[str, str, int]


def specs(options: argparse.Namespace) -> dict[Key, RunSpec]:
    """All runs by (mix, arm, seed): MAML's long ones first, then arm by arm, clean before corrupted."""
    scale = SCALES[options.scale]
    found: dict[Key, RunSpec] = {}
    for shots, steps in scale["maml"].items():
        data = {"shots": shots, "queries": 5, "test_shots": [shots]}
        method = {"aggregator": "mean", "lr": 2e-3, "lr_schedule": "cosine"}
        found["none", f"MAML, published network, {shots}-shot", 0] = _spec(options, data, method, steps, 32, 0)
    solved = [name for name, changes in ARMS.items() if changes.get("aggregator") in ("pcgrad", "upgrad")]
    for names in (
        [name for name in ARMS if name not in solved],
        solved,
    ):  # slow on a GPU: their weights come from a CPU
        for mix, arm, seed in product(("none", "corrupted"), names, options.seeds):
            method = {"lr": 2e-3, "lr_schedule": "cosine", **ARMS[arm]}
            data = {"mix": mix, "queries": 5}
            found[mix, arm, seed] = _spec(options, data, method, scale["steps"], scale["tasks"], seed)
    wanted = options.only
    return {
        key: spec
        for key, spec in found.items()
        if wanted is None or any(word in f"{key[0]} {key[1]}" for word in wanted)
    }


def _spec(
    options: argparse.Namespace, data: dict[str, Any], method: dict[str, Any], steps: int, tasks: int, seed: int
) -> RunSpec:
    scale = SCALES[options.scale]
    return parse_record(
        RunSpec,
        {
            "model": {"name": scale["network"], "dtype": "fp32"},
            "data": {"kind": "episodes", "source": "omniglot", "test_episodes": scale["episodes"], **data},
            "method": {"name": "gradient-harmonization", **method},
            "schedule": {"steps": steps, "batch_size": tasks, "eval_every": max(1, steps // 4)},
            "seed": seed,
            "device": options.device,
            "keep_weights": False,
        },
        "benchmarks/gradient_harmonization.py",
    )


def rows_of(runs: dict[Key, RunSpec], left: dict[Any, str], options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a run, then paired differences to the baseline."""
    store = Store(options.store)
    rows: list[dict[str, Any]] = []
    values: dict[str, dict[Any, float]] = {metric: {} for metric in METRICS}
    for (mix, arm, seed), spec in runs.items():
        row: dict[str, Any] = {"case": f"mix {mix}", "variant": f"{arm}, seed {seed}"}
        if (mix, arm, seed) in left:
            rows.append({**row, "missing": left[mix, arm, seed]})
            continue
        folder = store.run_folder(spec)
        result = folder.read_result()
        step_ms = None if result.step_s_median is None else 1000 * result.step_s_median
        facts = {"run": folder.run_id, "outcome": result.outcome, "steps": result.steps, "best_step": result.best_step}
        rows.append({**row, **facts, "train_s": result.train_s, "step_ms": step_ms, **result.metrics})
        for metric in METRICS:
            if (value := result.metrics.get(metric)) is not None:
                values[metric][(mix, arm), seed] = value
    for mix in ("none", "corrupted"):
        for arm in ARMS:
            for metric in METRICS:
                change = paired(values[metric], (mix, arm), (mix, BASELINE), options.seeds)
                if arm == BASELINE or change is None:
                    continue
                if metric not in _SHARES:  # an index, not a share: no points
                    change = {
                        name.replace("_points", ""): value / 100 if name.endswith("_points") else value
                        for name, value in change.items()
                    }
                rows.append({"case": f"mix {mix}: {arm} - {BASELINE}", "variant": metric, **change})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_options(parser, workers=2)
    parser.add_argument("--scale", choices=list(SCALES), default="small")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    options.seeds = options.seeds or [0, 1, 2]
    runs, started = specs(options), time.monotonic()
    left = do_runs(runs, options)
    wall = time.monotonic() - started
    rows = rows_of(runs, left, options)
    for row in rows:
        print(row)
    name = "gradient_harmonization" if options.scale == "full" else f"gradient_harmonization_{options.scale}"
    notes = [
        f"{wall:.0f} s of this call, for what was left to do; {options.workers} runs at once",
        "ci95: half the 95 % interval over test episodes, 1.96 s/sqrt(n); differences: t interval over paired seeds",
    ]
    settings = {"scale": options.scale, "seeds": options.seeds, **SCALES[options.scale], "missing": len(left)}
    print(write_result(name, rows, out=options.out, notes=notes, settings=settings))


if __name__ == "__main__":
    main()
