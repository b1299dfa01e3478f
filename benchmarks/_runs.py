"""Many runs, each a process of its own, spread over the GPUs, until all are done or time is up."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from optaware._io import write_json
from optaware.execute import Event, Job, Subprocess
from optaware.records import RunSpec, short_id
from optaware.store import Store
from optaware.study import stop_requests

__all__ = ["add_options", "do_runs", "paired"]


def add_options(parser: argparse.ArgumentParser, workers: int) -> None:
    """The options that all benchmarks made of runs have."""
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=None)
    parser.add_argument("--only", nargs="+", default=None, help="arms whose name has one of these words")
    parser.add_argument("--workers", type=int, default=workers, help="runs at once")
    parser.add_argument("--gpus", default=None, help="GPUs to share out, as 0,1; default: all that are visible")
    parser.add_argument(
        "--deadline-s",
        type=float,
        default=float("inf"),
        help="stop then, with up to a minute for running steps, and write what there is; the same command goes on",
    )
    parser.add_argument("--store", type=Path, default=Path("benchmark-store"))
    parser.add_argument("--out", type=Path)


def do_runs(runs: Mapping[Hashable, RunSpec], options: argparse.Namespace) -> dict[Hashable, str]:
    """Do what is not done, in the order given; a stop (deadline, Ctrl-C, SIGTERM) leaves checkpoints.

    Returns:
        The runs that are not done, each with the reason.
    """
    store, started = Store(options.store), time.monotonic()
    jobs, keys = [], {}
    for key, spec in runs.items():
        folder = store.run_folder(spec)
        if folder.is_done or short_id(spec) in keys:
            continue
        write_json(folder.spec, spec.to_json())
        command = ("train", str(folder.spec), "--store", str(store.root), "--data-dir", str(options.data_dir))
        jobs.append(Job(short_id(spec), str(key), (*command, "--quiet"), folder.log))
        keys[short_id(spec)] = key

    def show(event: Event) -> None:
        if event.kind == "end" and event.outcome is not None:
            seconds = time.monotonic() - started
            print(f"{seconds:6.0f} s  {event.job.title}: {event.outcome.state} {event.outcome.detail}", flush=True)

    with stop_requests() as asked:

        def late() -> bool:
            return asked() or time.monotonic() - started > options.deadline_s

        gpus = options.gpus.split(",") if options.gpus else None
        outcomes = Subprocess(options.workers, late, gpus=gpus).run(jobs, show)
    said = {each.key: f"{each.state}: {each.detail}" for each in outcomes}
    return {
        key: said.get(short_id(spec), "not done") for key, spec in runs.items() if not store.run_folder(spec).is_done
    }


def paired(values: Mapping[Any, float], arm: Any, other: Any, seeds: Sequence[int]) -> dict[str, Any] | None:
    """Mean paired difference `arm − other` in points over the seeds that both have, with its 95 % t interval.

    Args:
        values: Shares by (arm, seed).
        arm: First part of the key.
        other: First part of the key that is subtracted.
        seeds: Seeds to look for.

    Returns:
        None when no seed has both.
    """
    from optaware.stats import mean_interval

    both = [seed for seed in seeds if (arm, seed) in values and (other, seed) in values]
    if not both:
        return None
    changes = [100 * (values[arm, seed] - values[other, seed]) for seed in both]
    row: dict[str, Any] = {"difference_points": statistics.fmean(changes), "paired_seeds": len(both)}
    if len(changes) > 1:
        interval = mean_interval(changes)
        row |= {"low_points": interval.low, "high_points": interval.high, "interval": interval.method}
    return row
