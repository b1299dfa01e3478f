"""How long a large study's book-keeping takes: planning, resuming and indexing finished runs, building the report, and
what the driver adds to the runs' own time.

The runs of the first four are made up (no model is trained): folders as `optaware train` leaves them, with predictions,
evaluations and steps. Each measurement runs in a process of its own, so that its peak memory is its own.

What the driver adds is measured in two ways, so that it can be told on a machine that others use too:
- `between` runs jobs that do nothing but write down when they end. `noticed_s` is from there until the driver knows,
  `next_s` from there until it has started the next (medians over jobs, and the ninth tenth), `driver_cpu_s_per_job` its
  processor time, starting processes included.
- `overhead` trains a tiny model for real, one run at a time, under the driver that `optaware run` uses. Medians over
  runs: `begin_s` from the start of the process until the run's folder is opened (interpreter, imports), `run_s` from
  there to its DONE marker, `exit_s` from there until the driver knows that the process is gone (its own end included),
  `next_s` from there to the next start. `driver_cpu_s` is the driver's own processor time, planning and the display
  included.

    python benchmarks/study_scale.py                     # 10,000 runs for the driver, 1,000 for the report
    python benchmarks/study_scale.py --runs 1000 --report-runs 120 --steps 200 --overhead-steps 500
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median

import numpy as np

from _result import write_result
from optaware.records import MethodArm, MeZO, ModelRef, Protocol, RunSpec, Schedule, StudySpec, VariantSpec, short_id
from optaware.store import Store
from optaware.study import plan_study, report_study, run_study

TASK = Path(__file__).parents[1] / "examples" / "tasks" / "ticket_routing.yaml"
MODELS, ARMS = 5, 4


def study(runs: int, steps: int, rewritten: bool) -> StudySpec:
    """A study of about `runs` runs on the example task; `rewritten`: half of them on rows that are given."""
    variants = (VariantSpec(name="original"),)
    if rewritten:
        variants = (*variants, VariantSpec(name="mine", rows=str(_rows())))
    seeds = max(1, runs // (MODELS * ARMS * len(variants)))
    return StudySpec(
        name="scale",
        models=tuple(ModelRef(name=f"somebody/Model-{index}B") for index in range(1, MODELS + 1)),
        tasks=(str(TASK),),
        protocol=Protocol(name="free", train=12, dev=6, test=9),
        variants=variants,
        methods=tuple(MethodArm(label=f"MeZO {index}", config=MeZO(lr=1e-6 * (1 + index))) for index in range(ARMS)),
        schedule=Schedule(steps=steps, eval_every=max(1, steps // 20)),
        seeds=tuple(range(seeds)),
        zero_shot=False,
    )


def _rows() -> Path:
    """The example task's training rows as they are, standing in for rewritten ones."""
    from optaware.tasks import get_task, load_splits

    task = get_task(str(TASK))
    rows = load_splits(task, Protocol(name="free", train=12, dev=6, test=9)).train
    path = Path(tempfile.gettempdir()) / f"study-scale-{os.getuid()}.jsonl"
    path.write_text("".join(json.dumps({"example_id": row.id, **row.fields}) + "\n" for row in rows), "utf-8")
    return path


def write_run(store: Store, spec: RunSpec, rows: int, steps: int) -> None:
    """A finished run's folder, without fsync."""
    folder = store.run_folder(spec)
    folder.path.mkdir(parents=True)
    rng = np.random.default_rng(int(short_id(spec), 16))
    right = rng.random(rows) < 0.7
    predictions = [
        {"example_id": f"t/test/{index}", "label": index % 2, "predicted": index % 2 if ok else 1 - index % 2}
        for index, ok in enumerate(right)
    ]
    result = {
        "version": 1,
        "run_id": short_id(spec),
        "outcome": "done",
        "test": {"accuracy": float(right.mean()), "loss": 0.5, "n": rows},
        "dev": {"accuracy": 0.7, "loss": 0.5, "n": 6},
        "best_step": steps,
        "steps": steps,
        "forwards": 2 * steps,
        "skipped": 0,
        "train_s": 100.0,
        "eval_s": 1.0,
        "step_s_median": 0.1,
        "peak_memory_bytes": 10**9,
        "model_source": "hub:somebody",
        "model_sha256": None,
        "data_source": {"kind": "local", "location": "x", "sha256": {}},
    }
    folder.spec.write_text(json.dumps(spec.to_json()), "utf-8")
    folder.env.write_text(json.dumps({"optaware": "0.1.0", "cores": 2}), "utf-8")
    folder.predictions.write_text(
        "".join(json.dumps({**row, "scores": [-1.0, -2.0]}) + "\n" for row in predictions), "utf-8"
    )
    if steps > 0:
        losses = 0.7 + 0.1 * rng.standard_normal(steps)
        step = [
            {"step": i + 1, "loss": float(x), "coefficients": [0.1], "grad_norm": None, "lr": 1e-6, "examples": 16}
            | {"forwards": 2 * (i + 1), "skipped": False, "step_s": 0.1, "metrics": {}}
            for i, x in enumerate(losses)
        ]
        folder.steps.write_text("".join(json.dumps(row) + "\n" for row in step), "utf-8")
        every = max(1, steps // 20)
        evals = [
            {"step": i, "split": "dev", "loss": 0.5, "accuracy": 0.7, "n": 6, "best": False, "forwards": 2 * i}
            | {"wall_s": 1.0, "metrics": {}}
            for i in range(0, steps + 1, every)
        ]
        folder.evals.write_text("".join(json.dumps(row) + "\n" for row in evals), "utf-8")
    for path in (folder.resolved, folder.energy, folder.journal):
        path.write_text("{}", "utf-8")
    folder.result.write_text(json.dumps({**result, "files": folder.sizes()}), "utf-8")
    folder.done.write_text("", "utf-8")


class Nobody:
    """An executor that has nothing to do; it fails when it is given a job."""

    def run(self, jobs: object, on_event: object) -> list[object]:
        """See that nothing is left."""
        assert not jobs, f"{jobs}"
        return []


def measure(what: str, root: Path, runs: int, steps: int) -> dict[str, float]:
    """One measurement in this process."""
    store = Store(root)
    spec = study(runs, steps, rewritten=what == "report")
    begun, used = time.perf_counter(), time.process_time()
    if what == "index-again" or what == "index":
        rows = store.index()
        assert len(rows) >= 0.9 * runs, len(rows)
    else:
        graph = plan_study(spec)
        if what == "resume":
            run_study(graph, store, Nobody(), report=False)
        elif what == "report":
            report_study(graph, store)
    seconds, cpu = time.perf_counter() - begun, time.process_time() - used
    return {"wall_s": seconds, "cpu_s": cpu, "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}


def overhead(root: Path, runs: int, steps: int) -> dict[str, float]:
    """A study of a few short runs of the tiny model, one at a time, under the driver."""
    from optaware.cli._progress import JobProgress
    from optaware.execute import Event, Subprocess
    from optaware.models import tiny_model

    spec = study(runs, steps, rewritten=False).model_copy(
        update={
            "models": (ModelRef(name=str(tiny_model(root / "tiny")), dtype="fp32"),),
            "methods": (MethodArm(config=MeZO(lr=1e-6)),),
            "seeds": tuple(range(runs)),
            "device": "cpu",
        }
    )
    store = Store(root)
    times: dict[str, dict[str, float]] = {}
    begun, used = time.time(), time.process_time()
    graph = plan_study(spec)
    with JobProgress() as progress:

        def told(event: Event) -> None:
            progress(event)
            times.setdefault(event.job.key, {})[event.kind] = time.time()

        outcome = run_study(graph, store, Subprocess(1, lambda: False), on_event=told, report=False)
    assert not outcome.failures, outcome.failures
    wall, cpu = time.time() - begun, time.process_time() - used
    for run in graph.runs:
        folder, mine = store.run_folder(run), times[short_id(run)]
        mine |= {"opened": folder.env.stat().st_mtime, "done": folder.done.stat().st_mtime}
    order = sorted(times.values(), key=lambda mine: mine["start"])
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {
        "wall_s": wall,
        "begin_s": median(mine["opened"] - mine["start"] for mine in order),
        "run_s": median(mine["done"] - mine["opened"] for mine in order),
        "exit_s": median(mine["end"] - mine["done"] for mine in order),
        "next_s": median(after["start"] - mine["end"] for mine, after in pairwise(order)),
        "driver_cpu_s": cpu,
        "runs_cpu_s": children.ru_utime + children.ru_stime,
        "driver_cpu_share": cpu / (children.ru_utime + children.ru_stime),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def between(root: Path, jobs: int) -> dict[str, float]:
    """Jobs without work, one at a time: how soon the driver knows of an end, and how soon the next is begun."""
    from optaware.execute import Event, Job, Subprocess, _subprocess

    code = "import os, time; os.write(1, repr(time.time()).encode()); os._exit(0)"
    started: list[float] = []
    ended: list[float] = []

    def told(event: Event) -> None:
        (started if event.kind == "start" else ended).append(time.time())

    work = [Job(f"job-{index}", "nothing", (), root / f"job-{index}" / "log.txt") for index in range(jobs)]
    command, _subprocess.command_line = _subprocess.command_line, lambda job: [sys.executable, "-I", "-S", "-c", code]
    used = time.process_time()
    try:
        outcomes = Subprocess(1, lambda: False).run(work, told)
    finally:
        _subprocess.command_line = command
    cpu = time.process_time() - used
    assert [outcome.state for outcome in outcomes] == ["done"] * jobs
    wrote = [float(job.log.read_text("utf-8")) for job in work]
    noticed = sorted(known - end for known, end in zip(ended, wrote, strict=True))
    following = sorted(begin - known for begin, known in zip(started[1:], ended[:-1], strict=True))
    return {
        "noticed_s": median(noticed),
        "noticed_s_p90": noticed[int(0.9 * len(noticed))],
        "next_s": median(following),
        "next_s_p90": following[int(0.9 * len(following))],
        "driver_cpu_s_per_job": cpu / jobs,
    }


def main() -> None:
    """Write the made-up runs, measure, write the result file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--report-runs", type=int, default=1_000)
    parser.add_argument("--steps", type=int, default=2_000, help="updates logged per run of the report")
    parser.add_argument("--test-rows", type=int, default=500)
    parser.add_argument("--between-jobs", type=int, default=100)
    parser.add_argument("--overhead-runs", type=int, default=3)
    parser.add_argument("--overhead-steps", type=int, default=4_000, help="updates of a run of the tiny model")
    parser.add_argument("--out", type=Path, default=None)
    parser.add_argument("--measure", nargs=4, metavar=("WHAT", "ROOT", "RUNS", "STEPS"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        what, root, runs, steps = given.measure
        if what == "between":
            found = between(Path(root), int(runs))
        elif what == "overhead":
            found = overhead(Path(root), int(runs), int(steps))
        else:
            found = measure(what, Path(root), int(runs), int(steps))
        print(json.dumps(found))
        return
    if given.overhead_runs < 2 or given.between_jobs < 2:
        parser.error("what lies between two jobs takes two of them")
    rows = []
    with tempfile.TemporaryDirectory(prefix="study-scale-") as scratch:
        for part, runs, steps, cases in (
            ("driver", given.runs, 0, ("plan", "resume", "index", "index-again")),
            ("report", given.report_runs, given.steps, ("report",)),
            ("between", given.between_jobs, 0, ()),
            ("overhead", given.overhead_runs, given.overhead_steps, ()),
        ):
            root = Path(scratch) / part
            if not cases:
                rows.append(_measured(part, root, runs, steps, runs))
                continue
            graph = plan_study(study(runs, steps, rewritten=part == "report"))
            for spec in graph.runs:
                write_run(Store(root), spec, given.test_rows if part == "report" else 9, steps)
            for spec in graph.corpora:
                from optaware.study import rewrite_one

                rewrite_one(spec, Store(root))
            for case in cases:
                rows.append(_measured(case, root, runs, steps, len(graph.runs)))
    settings = {"test_rows": given.test_rows, "steps": given.steps, "overhead_steps": given.overhead_steps}
    print(write_result("study_scale", rows, out=given.out, settings=settings))


def _measured(case: str, root: Path, runs: int, steps: int, shown: int) -> dict[str, object]:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--measure", case, str(root), str(runs), str(steps)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    row = {"case": case, "variant": f"{shown} runs", **json.loads(done.stdout.splitlines()[-1])}
    print(row, flush=True)
    return row


if __name__ == "__main__":
    main()
