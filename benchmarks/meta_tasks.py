"""How much faster the meta-gradients of a batch of tasks are when the tasks are one vmapped computation than in a loop.

    python benchmarks/meta_tasks.py [--repeats N] [--out FILE]

Second-order MAML, one inner step, 5-way 1-shot, random images of 28×28; the two alternate within one process, the
figure is the median of the ratios. The gradients of both are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from _result import write_result
from optaware.records import ModelRef
from optaware.train.methods.gradient_harmonization import make_network, task_gradients

CASES: tuple[tuple[str, int, int, int | None], ...] = (
    ("mlp", 32, 1, None),
    ("mlp", 32, 15, None),
    ("conv4-32", 32, 1, None),
    ("conv4-32", 8, 5, None),
    ("conv4-64", 32, 1, None),
    ("conv4-64", 32, 15, None),
    ("conv4-64", 32, 15, 2),
)
"""Network, tasks, queries per class (1: as many as shots, the published setting), tasks at once (None: all)."""


def measure(
    name: str, tasks: int, queries: int, chunk: int | None, repeats: int, device: str
) -> dict[str, str | int | float | bool | None]:
    """Time one case."""
    network = make_network(ModelRef(name=name, dtype="fp32"), 1, 28, 5, device)
    params = {key: value.to(device) for key, value in network.init(0).items()}
    source = torch.Generator().manual_seed(0)
    support = torch.rand(tasks, 5, 28, 28, 1, generator=source).to(device)
    query = torch.rand(tasks, 5 * queries, 28, 28, 1, generator=source).to(device)
    labels = torch.arange(5, device=device).expand(tasks, -1)
    asked = torch.arange(5, device=device).repeat_interleave(queries).expand(tasks, -1)
    both = {
        "vmapped": task_gradients(network, "maml", lr=0.4, steps=1, chunk=chunk),
        "loop": task_gradients(network, "maml", lr=0.4, steps=1, vmapped=False),
    }
    found = {kind: run(params, support, labels, query, asked)[0] for kind, run in both.items()}
    for key in params:
        gap = (found["vmapped"][key] - found["loop"][key]).norm() / found["loop"][key].norm().clamp_min(1e-6)
        assert gap < 0.02, (name, key, float(gap))
    times: dict[str, list[float]] = {"vmapped": [], "loop": []}
    for _ in range(repeats):
        for kind, run in both.items():
            started = time.perf_counter()
            run(params, support, labels, query, asked)
            if device == "cuda":
                torch.cuda.synchronize()
            times[kind].append(time.perf_counter() - started)
    ratios = [slow / fast for slow, fast in zip(times["loop"], times["vmapped"], strict=True)]
    return {
        "case": f"{name}, {tasks} tasks{f' in parts of {chunk}' if chunk else ''}, {queries} queries per class",
        "variant": "vmapped against a loop over tasks",
        "vmapped_ms": 1000 * statistics.median(times["vmapped"]),
        "loop_ms": 1000 * statistics.median(times["loop"]),
        "loop_over_vmapped": statistics.median(ratios),
    }


def main() -> None:
    """Measure all cases and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = [measure(*case, options.repeats, device) for case in CASES]
    for row in rows:
        print(row)
    notes = [
        "Without CUDA graphs on either side; on a CPU one thread.",
        "Where the tasks are large the arithmetic itself is the cost.",
    ]
    print(write_result("meta_tasks", rows, out=options.out, notes=notes, settings={"repeats": options.repeats}))


if __name__ == "__main__":
    main()
