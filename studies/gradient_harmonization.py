"""The ablation of gradient harmonization on Omniglot, and MAML's published setting: all runs, several at once.

    python studies/gradient_harmonization.py --data-dir DATA --scale full --jobs 14 --device cuda

Arms (paired seeds): the baseline (layer-wise softmax of cosine scores, temperature 0.1, norm kept, cosine schedule),
the attention operator removed, the linear and the exponential schedule, and the scores as published (dot product,
temperature 1); on clean tasks and on a mix in which half of the training tasks have random query labels. MAML is
`attention removed`. Every run is `optaware train SPEC`, so the same command resumes. Writes `<scale>.json` with one row
per run and the paired differences per arm. Nothing is chosen on test classes: checkpoints by validation accuracy,
settings fixed here.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from optaware._io import write_json
from optaware.records import RunSpec, parse_record
from optaware.store import Store, environment

HARMONIZED = {"score": "cosine", "temperature": 0.1, "rescale": True}
ARMS: dict[str, dict[str, Any]] = {
    "baseline": {},
    "attention removed": {"attention": "uniform"},
    "linear schedule": {"explore": "linear"},
    "exponential schedule": {"explore": "exponential"},
    "as published (dot, τ = 1)": {"score": "dot", "temperature": 1.0, "rescale": False},
}
SCALES: dict[str, dict[str, Any]] = {
    "full": {"network": "conv4-64", "tasks": 16, "steps": 2000, "maml": {"1": 8000, "5": 4000}, "episodes": 600},
    "small": {"network": "conv4-32", "tasks": 8, "steps": 300, "maml": {}, "episodes": 600},
    "toy": {"network": "conv4-4", "tasks": 3, "steps": 4, "maml": {}, "episodes": 10},
}
"""`full`: about five minutes of one H100. `small`: the whole plan on two CPU cores. `toy`: seconds, to see it run."""
METRICS = ("5-way-1-shot accuracy", "5-way-5-shot accuracy", "GCI", "nGCI", "GCI after", "nGCI after")


def specs(options: argparse.Namespace) -> dict[tuple[str, str, int], RunSpec]:
    """All runs by (mix, arm, seed), the longest first."""
    scale = SCALES[options.scale]
    found: dict[tuple[str, str, int], RunSpec] = {}
    for shots, steps in scale["maml"].items():
        data = {"shots": int(shots), "queries": 5, "test_shots": [int(shots)]}
        method = {"aggregator": "mean", "lr": 2e-3, "lr_schedule": "cosine"}
        count = max(1, round(steps * options.length))
        found["none", f"MAML, published network, {shots}-shot", 0] = _spec(options, scale, data, method, count, 32, 0)
    steps = max(1, round(scale["steps"] * options.length))
    for seed in options.seeds:
        for mix in ("none", "corrupted"):
            for arm, changes in ARMS.items():
                method = {"lr": 2e-3, "lr_schedule": "cosine", **HARMONIZED, **changes}
                found[mix, arm, seed] = _spec(
                    options, scale, {"mix": mix, "queries": 5}, method, steps, scale["tasks"], seed
                )
    return found


def _spec(
    options: argparse.Namespace,
    scale: dict[str, Any],
    data: dict[str, Any],
    method: dict[str, Any],
    steps: int,
    tasks: int,
    seed: int,
) -> RunSpec:
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
        "studies/gradient_harmonization.py",
    )


def run_all(runs: dict[tuple[str, str, int], RunSpec], options: argparse.Namespace) -> None:
    """Run what is left, `jobs` at once; at the deadline those that run are stopped (the same command resumes them)."""
    store = Store(options.store)
    waiting = [spec for spec in runs.values() if not store.run_folder(spec).is_done]
    running: list[subprocess.Popen[bytes]] = []
    ends = time.monotonic() + options.deadline_s
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    while waiting or running:
        running = [process for process in running if process.poll() is None]
        late = time.monotonic() > ends
        if late:
            waiting = []
            for process in running:
                process.terminate()
            for process in running:
                process.wait()
            print("the deadline came; the same command goes on", file=sys.stderr)
            return
        while waiting and len(running) < options.jobs:
            spec = waiting.pop(0)
            folder = store.run_folder(spec)
            write_json(folder.path / "spec.json", spec.to_json())
            command = [sys.executable, "-m", "optaware", "train", str(folder.path / "spec.json"), "--quiet"]
            command += ["--store", str(options.store), "--data-dir", str(options.data_dir)]
            with folder.log.open("ab") as log:
                running.append(subprocess.Popen(command, stdout=log, stderr=log, env=environ))
        time.sleep(0.2)


def summary(runs: dict[tuple[str, str, int], RunSpec], options: argparse.Namespace) -> dict[str, Any]:
    """Rows per run, means per arm, and paired differences to the baseline with their 95 % t interval over seeds."""
    store = Store(options.store)
    rows: list[dict[str, Any]] = []
    missing: list[str] = []
    for (mix, arm, seed), spec in runs.items():
        folder = store.run_folder(spec)
        if not folder.is_done:
            missing.append(f"{mix}, {arm}, seed {seed}")
            continue
        result = folder.read_result()
        facts = {"mix": mix, "arm": arm, "seed": seed, "run": folder.run_id, "outcome": result.outcome}
        times = {"train_s": result.train_s, "step_ms": 1000 * (result.step_s_median or 0.0), "steps": result.steps}
        rows.append({**facts, **times, "best_step": result.best_step, "metrics": result.metrics})
    return {
        "study": "gradient_harmonization",
        "scale": options.scale,
        "length": options.length,
        "environment": environment(),
        "device": _device_name(options.device),
        "rows": rows,
        "differences": [_difference(rows, mix, arm) for mix in ("none", "corrupted") for arm in list(ARMS)[1:]],
        "missing": missing,
    }


def _difference(rows: list[dict[str, Any]], mix: str, arm: str) -> dict[str, Any]:
    from scipy.stats import t

    by_arm = {(row["arm"], row["seed"]): row["metrics"] for row in rows if row["mix"] == mix}
    seeds = sorted({seed for name, seed in by_arm if name == arm} & {s for name, s in by_arm if name == "baseline"})
    found: dict[str, Any] = {"mix": mix, "arm": arm, "minus": "baseline", "seeds": seeds}
    for metric in METRICS:
        pairs = [(by_arm[arm, seed].get(metric), by_arm["baseline", seed].get(metric)) for seed in seeds]
        deltas = [one - other for one, other in pairs if one is not None and other is not None]
        if len(deltas) > 1:
            half = float(t.ppf(0.975, len(deltas) - 1)) * statistics.stdev(deltas) / len(deltas) ** 0.5
            found[metric] = {"difference": statistics.fmean(deltas), "half_width": half}
    return found


def _device_name(device: str) -> str:
    import torch

    if device != "cpu" and torch.cuda.is_available():
        return str(torch.cuda.get_device_name())
    return str(environment()["cpu"])


def main() -> None:
    """Run, then write the summary and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True, help="holds omniglot/omniglot_28.npz")
    parser.add_argument("--scale", choices=list(SCALES), default="small")
    parser.add_argument("--length", type=float, default=1.0, help="factor on all numbers of updates")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--jobs", type=int, default=2, help="runs at once")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--store", type=Path, default=Path("optaware-results"))
    parser.add_argument("--deadline-s", type=float, default=float("inf"), help="stop then; the same command goes on")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "gradient_harmonization")
    options = parser.parse_args()
    runs = specs(options)
    started = time.monotonic()
    run_all(runs, options)
    found = summary(runs, options)
    found["wall_s"] = time.monotonic() - started
    write_json(options.out / f"{options.scale}.json", found)
    for row in found["rows"]:
        figures = {key: round(value, 4) for key, value in row["metrics"].items() if value is not None}
        print(row["mix"], "|", row["arm"], "| seed", row["seed"], "|", round(row["step_ms"], 2), "ms |", figures)
    for difference in found["differences"]:
        print(difference)
    if found["missing"]:
        print("not done:", *found["missing"], sep="\n  ")


if __name__ == "__main__":
    main()
