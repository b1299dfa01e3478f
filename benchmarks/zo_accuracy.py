"""Accuracy at equal forward passes: MeZO as in its paper against our default, on real tasks, with paired seeds.

    python benchmarks/zo_accuracy.py --model MODEL --data-dir DATA --runs FOLDER [--jobs 8] [--budget-s 560]

Arms: `original`, the paper's loop (perturbations written to fp32 weights, dense Gaussian, two points, constant rate),
and one or more forms of ours (bf16). Every run spends the same number of forward passes.

Nothing is chosen by a test row. The rule: for each task and form, one run for each learning rate of the form's grid, at
a seed that is used for nothing else; the rate with the lowest dev loss (at the run's best step; a tie takes the smaller
rate) is the task's. Of our forms that one is taken, for all tasks, whose dev loss is lowest against the original's, in
the mean over tasks. Then both arms run with the seeds; test rows are scored at the step of the lowest dev loss.

Each run is a process; `--jobs` of them share the visible GPUs (each sees the one that was the least busy). FOLDER keeps
what a run left (spec, result, evaluations, steps, predictions), and what is there is not run again, so the same command
goes on. `--budget-s` stops in order: no run starts that could not end in time, those that are under way are dropped,
and the result says which are missing. The grids may take `--grid-share` of it; a task whose grids are not whole by then
is left out of the comparison until the next call. With `--budget-s 0` the result is made of what is there.

`--grid-from RESULT` takes grid points from an earlier result file of the same settings instead of running them again;
the notes say which commit made them.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _result import write_result
from optaware._io import read_json, read_jsonl, write_json
from optaware.execute._gpus import visible_gpus
from optaware.records import DataRef, ModelRef, Protocol, RunSpec, Schedule, parse_record, short_id

TASKS = ("sst2", "rte", "cb", "boolq", "copa")
TUNING_SEED = 100
ORIGINAL = "original"
LR_GRID = (5e-6, 2e-5, 5e-5)
FORMS: dict[str, tuple[str, dict[str, Any], tuple[float, ...]]] = {
    # On four of five tasks the first three rates were best at their upper end, so the original is given a fourth.
    ORIGINAL: ("fp32", {"name": "mezo", "apply": "in-place", "precision": "none"}, (*LR_GRID, 1e-4)),
    "fast": ("bf16", {"name": "fast"}, LR_GRID),
    "fast-cosine": ("bf16", {"name": "fast", "lr_schedule": "cosine"}, (2e-5, 5e-5, 1e-4)),
    "fast-spread": (
        "bf16",
        {"name": "fast", "estimator": "one-sided", "normalise": True, "queries": 4},
        (1e-4, 3e-4, 1e-3),
    ),
}
"""Form -> (dtype, config, learning rates)."""
Rates = Mapping[str, Mapping[str, float]]
KEPT = ("spec.json", "result.json", "eval.jsonl", "steps.jsonl", "predictions.jsonl")


def forwards_per_step(config: Mapping[str, Any]) -> int:
    """Forward passes that a step of a form takes."""
    queries = int(config.get("queries", 1))
    return {"two-point": 2 * queries, "one-sided": queries + 1}[config.get("estimator", "two-point")]


def spec_of(options: argparse.Namespace, task: str, form: str, lr: float, seed: int) -> RunSpec:
    """The spec of one run."""
    dtype, config, _ = FORMS[form]
    steps = max(1, options.forwards // forwards_per_step(config))
    protocol = {"name": "mezo"}
    if options.rows:
        protocol = dict(zip(("train", "dev", "test"), options.rows, strict=True), name="free")
    data = {
        "model": ModelRef(name=str(options.model), dtype=dtype).to_json(),
        "data": DataRef(task=task, protocol=parse_record(Protocol, protocol, "")).to_json(),
        "method": {**config, "lr": lr},
        "schedule": Schedule(
            steps=steps,
            batch_size=options.batch_size,
            eval_every=max(1, steps // options.evaluations),
            max_length=options.max_length,
        ).to_json(),
        "seed": seed,
        "keep_weights": False,
    }
    return parse_record(RunSpec, data, "")


@dataclass(frozen=True)
class Job:
    """A run that is under way."""

    process: subprocess.Popen[bytes]
    spec: RunSpec
    gpu: str | None
    started: float


class Pool:
    """Runs specs in processes, `jobs` at a time, until the budget is spent."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.runs: Path = options.runs
        self.started = time.monotonic()
        self.gpus = visible_gpus()
        self.longest = 0.0
        self.failures: dict[str, str] = {}
        self.earlier = earlier_grid(options) if options.grid_from else {}

    def grid_dev(self, task: str, form: str, lr: float) -> dict[str, Any] | None:
        """Outcome and dev scores of a grid point, from this call's runs or from the earlier result."""
        result = self.result(spec_of(self.options, task, form, lr, TUNING_SEED))
        if result is None:
            return self.earlier.get((task, form, lr))
        dev = result["dev"] or {}
        return {"outcome": result["outcome"], "dev_loss": dev.get("loss"), "dev_accuracy": dev.get("accuracy")}

    def folder(self, spec: RunSpec) -> Path:
        """Where a run's files are kept."""
        return self.runs / f"{short_id(spec)}-{spec.slug}"

    def result(self, spec: RunSpec) -> dict[str, Any] | None:
        """The result of a run, if it is there."""
        path = self.folder(spec) / "result.json"
        return read_json(path) if path.exists() else None

    def do(self, specs: Iterable[RunSpec], share: float = 1.0) -> None:
        """Run those of `specs` that are not there yet, up to a share of the budget."""
        deadline = self.started + share * self.options.budget_s
        waiting = [spec for spec in specs if self.result(spec) is None and short_id(spec) not in self.failures]
        waiting.reverse()
        running: list[Job] = []
        try:
            while waiting or running:
                now = time.monotonic()
                while waiting and len(running) < self.options.jobs and now + self.longest < deadline:
                    running.append(self._start(waiting.pop(), [job.gpu for job in running]))
                if not running or now > deadline:
                    return
                time.sleep(0.2)
                for job in [job for job in running if job.process.poll() is not None]:
                    running.remove(job)
                    self._ended(job)
        finally:
            for job in running:
                job.process.terminate()
            for job in running:
                job.process.wait()

    def _start(self, spec: RunSpec, busy: Sequence[str | None]) -> Job:
        folder = self.folder(spec)
        write_json(folder / "spec.json", spec.to_json())
        command = [sys.executable, __file__, "--one", str(folder), "--scratch", str(self.options.scratch)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        if self.options.data_dir:
            environment["OPTAWARE_DATA_DIR"] = str(self.options.data_dir)
        gpu = min(self.gpus, key=busy.count) if self.gpus else None
        if gpu is not None:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        with (folder / "log.txt").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        return Job(process, spec, gpu, time.monotonic())

    def _ended(self, job: Job) -> None:
        spec, seconds, result = job.spec, time.monotonic() - job.started, self.result(job.spec)
        words = f"{spec.data.task} {spec.method.name} lr {getattr(spec.method, 'lr', 0):g} seed {spec.seed}"
        if result is None:
            log = (self.folder(spec) / "log.txt").read_text("utf-8", "replace").strip().splitlines()
            self.failures[short_id(spec)] = log[-1] if log else f"exit code {job.process.returncode}"
            print(f"failed: {words}: {self.failures[short_id(spec)]}", flush=True)
            return
        self.longest = max(self.longest, seconds)
        loss = result["dev"]["loss"] if result["dev"] else None
        print(f"{seconds:6.1f} s  {words}: dev loss {loss}, step {result['best_step']}/{result['steps']}", flush=True)


def one(folder: Path, scratch: Path) -> None:
    """Do the run of `folder`/spec.json in a store of its own below `scratch`, and keep its small files in `folder`."""
    from optaware.store import Store
    from optaware.study import train_one

    spec = parse_record(RunSpec, read_json(folder / "spec.json"), str(folder))
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=scratch) as temporary:
        store = Store(Path(temporary))
        train_one(spec, store)
        source = store.run_folder(spec).path
        for name in sorted(KEPT, key=lambda name: name == "result.json"):  # the result last: it marks the run done
            if name != "spec.json" and (source / name).exists():
                shutil.copyfile(source / name, folder / f".{name}")
                (folder / f".{name}").replace(folder / name)


def earlier_grid(options: argparse.Namespace) -> dict[tuple[str, str, float], dict[str, Any]]:
    """The grid points of `--grid-from`, by task, form and rate; refuses a result that was made otherwise."""
    found = read_json(options.grid_from)
    now = settings_of(options)
    for name in sorted(now.keys() - {"forms"}):
        if found["settings"][name] != now[name]:
            raise SystemExit(f"{options.grid_from}: {name} is {found['settings'][name]}, here it is {now[name]}")
    same = [form for form, made in found["settings"]["forms"].items() if made[:2] == list(FORMS[form][:2])]
    kept = ("outcome", "dev_loss", "dev_accuracy")
    return {
        (row["case"], row["variant"], row["lr"]): {name: row[name] for name in kept}
        for row in found["rows"]
        if row.get("stage") == "grid" and row["variant"] in same
    }


def settings_of(options: argparse.Namespace) -> dict[str, Any]:
    """What decides on a run besides its task, form, rate and seed."""
    names = ("forwards", "batch_size", "max_length", "evaluations", "rows")
    return {name: getattr(options, name) for name in names} | {"forms": {form: FORMS[form] for form in options.forms}}


def choose(pool: Pool, options: argparse.Namespace) -> tuple[dict[str, dict[str, float]], str | None]:
    """Run the grids; returns learning rates by form and task, and our form that is taken (None: not decided)."""
    grid = [(task, form, lr) for task in options.tasks for form in options.forms for lr in FORMS[form][2]]
    wanted = (spec_of(options, *point, TUNING_SEED) for point in grid if point not in pool.earlier)
    pool.do(wanted, options.grid_share)
    losses: dict[str, dict[str, float]] = {form: {} for form in options.forms}
    rates: dict[str, dict[str, float]] = {form: {} for form in options.forms}
    for form in options.forms:
        for task in options.tasks:
            found = []
            for lr in FORMS[form][2]:
                dev = pool.grid_dev(task, form, lr)
                if dev is not None and dev["dev_loss"] is not None:
                    found.append((dev["dev_loss"], lr))
            if len(found) == len(FORMS[form][2]) or (found and options.budget_s == 0):
                losses[form][task], rates[form][task] = min(found)
    ours = [form for form in options.forms if form != ORIGINAL]
    whole = [form for form in ours if losses[form].keys() == losses[ORIGINAL].keys() != set()]
    gains = {form: statistics.mean(losses[form][t] - losses[ORIGINAL][t] for t in losses[form]) for form in whole}
    return rates, min(gains, key=lambda form: gains[form]) if gains else None


def curve(folder: Path) -> dict[str, Any]:
    """Dev accuracy and loss against forward passes and seconds of training."""
    seconds, total = {}, 0.0
    for row in read_jsonl(folder / "steps.jsonl"):
        total += row["step_s"]
        seconds[row["step"]] = total
    rows = read_jsonl(folder / "eval.jsonl")
    return {
        "forwards": [row["forwards"] for row in rows],
        "train_s": [round(seconds[row["step"]], 3) for row in rows],
        "dev_accuracy": [row["accuracy"] for row in rows],
        "dev_loss": [row["loss"] for row in rows],
    }


def when(curve: Mapping[str, Any], loss: float | None) -> dict[str, Any]:
    """Forward passes and seconds after which a curve is at or below a dev loss; None where it never is."""
    at = next((i for i, own in enumerate(curve["dev_loss"]) if None not in (own, loss) and own <= loss), None)
    names = {"forwards_to_best_of_original": "forwards", "seconds_to_best_of_original_s": "train_s"}
    return {name: None if at is None else curve[key][at] for name, key in names.items()}


def right(folder: Path) -> list[float]:
    """1 for each test row that was predicted right, in the rows' order."""
    rows = sorted(read_jsonl(folder / "predictions.jsonl"), key=lambda row: row["example_id"])
    return [float(row["predicted"] == row["label"]) for row in rows]


def contrasts(
    pool: Pool, options: argparse.Namespace, rates: Mapping[str, Mapping[str, float]], ours: str
) -> list[Any]:
    """Differences of the test accuracies, by task and in the mean, with intervals."""
    import numpy as np

    from optaware.stats import paired_bootstrap

    rows: list[dict[str, Any]] = []
    for task in options.tasks:
        both: dict[str, list[list[float]]] = {ORIGINAL: [], ours: []}
        for seed in options.seeds:
            folders = {
                form: pool.folder(spec_of(options, task, form, rates[form][task], seed))
                for form in both
                if task in rates[form]
            }
            if len(folders) == 2 and all((folder / "result.json").exists() for folder in folders.values()):
                for form, folder in folders.items():
                    both[form].append(right(folder))
        if not both[ours]:
            continue
        interval = paired_bootstrap(both[ours], both[ORIGINAL], rng=np.random.default_rng(0))
        rows.append(
            {
                "case": task,
                "variant": f"{ours} - {ORIGINAL}",
                "seeds": len(both[ours]),
                "n": len(both[ours][0]),
                "difference": interval.estimate,
                "low": interval.low,
                "high": interval.high,
            }
        )
    if rows:
        mean = statistics.mean(row["difference"] for row in rows)
        half = [max(row["high"] - row["difference"], row["difference"] - row["low"]) for row in rows]
        width = sum(each**2 for each in half) ** 0.5 / len(rows)
        last = {"difference": mean, "low": mean - width, "high": mean + width, "tasks": len(rows)}
        rows.append({"case": "mean over tasks", "variant": f"{ours} - {ORIGINAL}", **last})
    return rows


def finals(options: argparse.Namespace, rates: Rates, ours: str) -> list[Any]:
    """(task, form, seed, spec) of the runs that are compared; pairs of one seed side by side, seed by seed."""
    return [
        (task, form, seed, spec_of(options, task, form, rates[form][task], seed))
        for seed in options.seeds
        for task in options.tasks
        for form in (ORIGINAL, ours)
        if task in rates[form]
    ]


def report(pool: Pool, options: argparse.Namespace, rates: Any, ours: str | None) -> None:
    """Write the result file from what is there."""
    rows: list[dict[str, Any]] = []
    missing: list[str] = []
    reached: dict[tuple[str, int], float | None] = {}  # lowest dev loss of the original
    for task in options.tasks:
        for form in options.forms:
            for lr in FORMS[form][2]:
                dev = pool.grid_dev(task, form, lr)
                if dev is None:
                    missing.append(f"grid: {task} {form} {lr:g}")
                    continue
                rows.append({"case": task, "variant": form, "stage": "grid", "lr": lr, **dev})
    for task, form, seed, spec in finals(options, rates, ours) if ours else []:
        result = pool.result(spec)
        if result is None:
            missing.append(f"final: {task} {form} seed {seed}")
            continue
        row = {"case": task, "variant": form, "stage": "final", "seed": seed, "lr": rates[form][task]}
        row |= {key: result[key] for key in ("best_step", "steps", "forwards", "skipped", "train_s", "outcome")}
        row |= {"accuracy": result["test"]["accuracy"], "n": result["test"]["n"], "f1": result["metrics"]["f1"]}
        row |= {"step_ms": 1e3 * result["step_s_median"], "peak_memory_bytes": result["peak_memory_bytes"]}
        found = curve(pool.folder(spec))
        if form == ORIGINAL:
            reached[task, seed] = min((loss for loss in found["dev_loss"] if loss is not None), default=None)
        row |= when(found, reached.get((task, seed)))
        rows.append(row | {"curve": json.dumps(found)})
    if ours:
        rows += contrasts(pool, options, rates, ours)
    notes = [
        "Learning rates and our form were chosen by dev loss at a tuning seed, by the rule in the script's head; test "
        "rows were scored once, at the step of the lowest dev loss.",
        "Curves are of the dev rows. The mean's interval adds the tasks' half-widths in quadrature.",
        "Runs share the device with others, so seconds compare runs of one call only.",
        *(f"missing: {each}" for each in missing),
        *(f"failed: {key}: {why}" for key, why in pool.failures.items()),
    ]
    if options.grid_from:
        made = read_json(options.grid_from)
        notes.insert(2, f"{len(pool.earlier)} grid points were run by an earlier call, at commit {made['commit']}.")
    settings = settings_of(options) | {"form taken": ours, "rates": rates}
    print(write_result("zo_accuracy", rows, out=options.out, notes=notes, settings=settings))
    for row in rows:
        if "difference" in row:
            print(row)
    print(f"{len(missing)} runs missing", flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run grids, then finals, then write the result; 3 when runs are missing."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="folder or name")
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("OPTAWARE_DATA_DIR"))
    parser.add_argument("--runs", type=Path, default=Path("optaware-results/zo_accuracy"), help="what runs leave")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="for checkpoints, 1 GB a job")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=list(FORMS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--forwards", type=int, default=1600, help="forward passes of a run")
    parser.add_argument("--evaluations", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=256)
    parser.add_argument("--rows", type=int, nargs=3, metavar=("TRAIN", "DEV", "TEST"), help="instead of MeZO's sizes")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--budget-s", type=float, default=float("inf"))
    parser.add_argument("--grid-share", type=float, default=0.65, help="of the budget that the grids may take")
    parser.add_argument("--grid-from", type=Path, metavar="RESULT", help="an earlier result file whose grid is used")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one:
        one(options.one, options.scratch)
        return 0
    if ORIGINAL not in options.forms:
        options.forms.insert(0, ORIGINAL)
    pool = Pool(options)
    rates, ours = choose(pool, options)
    if ours:
        pool.do(spec for *_, spec in finals(options, rates, ours))
    report(pool, options, rates, ours)
    done = ours and all(pool.result(spec) for *_, spec in finals(options, rates, ours))
    return 0 if done else 3


if __name__ == "__main__":
    raise SystemExit(main())
