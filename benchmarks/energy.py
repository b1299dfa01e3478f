"""Energy of whole runs at equal forward passes, each alone on its device: forward-only and first-order methods.

    python benchmarks/energy.py --model MODEL --data-dir DATA --gpus 1

Arms: `fast` (ours), `mezo` (the paper's loop on fp32 weights), `fo-full` and `fo-lora`. A two-point step is two forward
passes and a first-order step is counted as three, as its backward pass costs about two. A run goes from loading the
model to its last score on dev rows; its energy is what the device's own counter says (NVML: the board, without the
host), or unknown, with the reason, where other processes used the device too. Nothing else must run on it, so runs are
made one after another; the seeds repeat the order backwards and forwards, so that a device that warms up favours none.

The same command goes on in `--store`.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable
from itertools import product
from typing import Any

from _result import write_result
from _runs import add_options, do_runs
from optaware.records import DataRef, ModelRef, Protocol, RunSpec, Schedule, parse_record
from optaware.store import Store

ARMS: dict[str, tuple[str, int, dict[str, Any]]] = {
    "fast": ("bf16", 2, {"name": "fast", "lr": 2e-5}),
    "mezo": ("fp32", 2, {"name": "mezo", "lr": 5e-6, "apply": "in-place", "precision": "none"}),
    "fo-full": ("bf16", 3, {"name": "fo-full", "lr": 1e-5}),
    "fo-lora": ("bf16", 3, {"name": "fo-lora", "lr": 1e-4, "rank": 8, "alpha": 16}),
}
"""Arm -> dtype, forward passes that a step counts as, config."""


def spec_of(options: argparse.Namespace, arm: str, seed: int) -> RunSpec:
    """The spec of one run: as many steps as the forward passes buy, dev rows scored twice, no test rows."""
    dtype, passes, config = ARMS[arm]
    steps = options.forwards // passes
    protocol = Protocol(name="free", train=options.rows[0], dev=options.rows[1], test=8)
    data = {
        "model": ModelRef(name=options.model, dtype=dtype).to_json(),
        "data": DataRef(task=options.task, protocol=protocol).to_json(),
        "method": config,
        "schedule": Schedule(steps=steps, batch_size=options.batch_size, eval_every=max(1, steps // 2)).to_json(),
        "seed": seed,
        "keep_weights": False,
    }
    return parse_record(RunSpec, data, "")


def row_of(store: Store, arm: str, specs: Iterable[RunSpec], missing: Iterable[str]) -> dict[str, Any]:
    """An arm's figures: medians over its seeds, and the reasons where energy or whole runs are missing."""
    results = [folder.read_result() for spec in specs if (folder := store.run_folder(spec)).is_done]
    joules = [each.energy.joules for each in results if each.energy.joules is not None]
    reasons = sorted({each.energy.why for each in results if each.energy.joules is None} | set(missing))
    row: dict[str, Any] = {"case": "whole run", "variant": arm, "runs": len(results), "runs_with_energy": len(joules)}
    if results:
        row |= {
            "forward_passes": ARMS[arm][1] * results[0].steps,
            "steps": results[0].steps,
            "train_s": statistics.median(each.train_s for each in results),
            "eval_s": statistics.median(each.eval_s for each in results),
            "step_s_median": statistics.median(each.step_s_median or float("nan") for each in results),
            "dev_accuracy": statistics.median(each.dev.accuracy for each in results if each.dev),
            "source": ", ".join(sorted({each.energy.source for each in results if each.energy.source})),
        }
    if joules:
        middle = statistics.median(joules)
        row |= {"energy_j": middle, "energy_least_j": min(joules), "energy_most_j": max(joules)}
        row |= {"energy_per_forward_j": middle / row["forward_passes"]}
    return {**row, "unknown_because": "; ".join(reasons)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="asset, hub name or path")
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--rows", type=int, nargs=2, default=[1000, 100], help="training and dev rows")
    parser.add_argument("--forwards", type=int, default=600)
    parser.add_argument("--batch-size", type=int, default=16)
    add_options(parser, workers=1)
    options = parser.parse_args()
    if options.workers != 1:
        parser.error("a run that shares its device has no energy of its own: --workers must be 1")
    arms = [arm for arm in ARMS if not options.only or any(word in arm for word in options.only)]
    seeds = options.seeds or [0, 1, 2]
    order = [(arm, seed) for seed in seeds for arm in (arms if seeds.index(seed) % 2 == 0 else arms[::-1])]
    runs = {key: spec_of(options, *key) for key in order}
    missing = do_runs(runs, options)
    store = Store(options.store)
    rows = [
        row_of(
            store,
            arm,
            [runs[key] for key in product([arm], seeds)],
            [reason for key, reason in missing.items() if key in set(product([arm], seeds))],
        )
        for arm in arms
    ]
    least = next((row["energy_j"] for row in rows if row["variant"] == "fast" and "energy_j" in row), None)
    for row in rows:
        if least is not None and "energy_j" in row:
            row["energy_ratio_to_fast"] = row["energy_j"] / least
        print({key: round(value, 4) if isinstance(value, float) else value for key, value in row.items()}, flush=True)
    settings = {"model": options.model, "task": options.task, "rows": options.rows, "batch_size": options.batch_size}
    notes = [
        "A step counts as two forward passes with two points, three with a backward pass.",
        "Energy is the device's own counter over the whole run (loading, check, training, dev rows twice).",
        "Medians over seeds; the library's first start in a cold file cache may fall into the first run's time.",
    ]
    path = write_result(
        "energy", rows, out=options.out, notes=notes, settings={**settings, "forwards": options.forwards}
    )
    print(path)


if __name__ == "__main__":
    main()
