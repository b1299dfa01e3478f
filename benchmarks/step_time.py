"""Time of one training step against two bare forward passes of the same batch.

Four variants take turns in one process, so that whatever else the machine does falls on all of them alike:

- `two-forwards`: the bare model twice, the least that a two-point estimate can cost.
- `low-rank`: a whole step of the default method (draws, both probes, update; the refresh every `refresh_every` steps is
  measured apart and added in proportion).
- `gaussian`, `rademacher`: whole steps with dense directions inside the forward pass, both signs in one batch from one
  draw, the update before included.
- `low-rank-batched`: as `low-rank`, both signs in one batch.
- `plain`: a step of the reference (four dense noise passes over the weights), one row per example.
- `original`: the same with one row per answer option, as MeZO's own code batches.

With `--shape` the model has a known shape and random weights; the variants are those of `_shapes.py`, fused on CUDA.

    python benchmarks/step_time.py --model smollm2-135m-instruct
    python benchmarks/step_time.py --shape llama-1b --device cuda --lengths 64 256
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from _result import write_result
from optaware.models import EncodedExample, OptionScorer, encode, load_model
from optaware.records import ModelRef, Protocol
from optaware.tasks import get_task, load_splits
from optaware.train import SGD, LowRank, PlainMeZO, TwoPoint, ZerothOrderLearner
from optaware.train.directions import Dense
from optaware.train.objectives import TaskObjective

FAR = 10**6
"""Steps between refreshes while steps are timed, so that none falls into them."""


def examples(count: int, tokenizer: Any, data: Path | None) -> list[EncodedExample]:
    """SST-2 rows as `{sentence} It was {terrible|great}`."""
    task = get_task("sst2")
    rows = load_splits(task, Protocol(name="free", train=count, dev=8, test=8), data_dir=data).train
    return encode([task.render(row) for row in rows], tokenizer, 1024)


def one_row_per_option(rows: list[EncodedExample]) -> list[EncodedExample]:
    """Each option as a row of its own."""
    return [
        EncodedExample(f"{row.id}/{k}", row.prompt_ids, (option,), 0)
        for row in rows
        for k, option in enumerate(row.option_ids)
    ]


def seconds(run: Callable[[], object], synchronize: Callable[[], None]) -> tuple[float, float]:
    """Wall-clock and CPU time of a call."""
    synchronize()
    started, busy = time.perf_counter(), time.process_time()
    run()
    synchronize()
    return time.perf_counter() - started, time.process_time() - busy


def by_shape(options: argparse.Namespace) -> None:
    """Measure on a model of known shape; what is done is written after each length."""
    from _shape_steps import NOTES, measure

    rows: list[dict[str, Any]] = []
    for length in options.lengths:
        rows += measure(options.shape, options.device, options.batch_size, length, options.rounds, options.variants)
        settings = {"rank": 8, "refresh_every": 10, "options": 2, "option_tokens": 1}
        write_result("step_time", rows, out=options.out, settings=settings, notes=NOTES)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="asset, hub name or path")
    parser.add_argument("--data", type=Path, help="folder of data sets; by default as for any run")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--plain-rounds", type=int, default=3, help="rounds that the two slow variants take part in")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--refresh-every", type=int, default=10)
    parser.add_argument("--dtype", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--precision", default="auto", help="remedy of the dense variants")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--shape", help="llama-1b or tiny: random weights of that shape instead of a model")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="with --shape")
    parser.add_argument("--lengths", type=int, nargs="*", default=[64, 256], help="tokens of a row, with --shape")
    parser.add_argument("--variants", nargs="*", default=[], help="with --shape; by default all but first-order ones")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.shape:
        by_shape(options)
        return

    loaded = load_model(ModelRef(name=options.model, dtype=options.dtype))
    scorer = OptionScorer(loaded.model, loaded.tokenizer)
    batch = examples(options.batch_size, loaded.tokenizer, options.data)
    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None

    loss = TaskObjective(scorer, "options")

    def original_loss(rows: Any) -> torch.Tensor:
        scores = scorer.option_logprobs(one_row_per_option(rows)).reshape(len(rows), -1)
        return torch.nn.functional.cross_entropy(scores, torch.tensor([row.label for row in rows]).to(scores.device))

    direction = LowRank(loaded.model, rank=options.rank, refresh_every=FAR, seed=0)
    fast = ZerothOrderLearner(loaded.model, loss, direction, TwoPoint(1e-3), SGD(1e-7))
    both = ZerothOrderLearner(loaded.model, loss, direction, TwoPoint(1e-3), SGD(1e-7), most_copies=2)
    dense = {
        kind: ZerothOrderLearner(
            loaded.model,
            loss,
            Dense(loaded.model, distribution=kind, precision=options.precision),  # type: ignore[arg-type]
            TwoPoint(1e-3),
            SGD(1e-7),
            most_copies=2,
        )
        for kind in ("gaussian", "rademacher")
    }
    plain = PlainMeZO(loaded.model, loss, lr=1e-7, eps=1e-3)
    original = PlainMeZO(loaded.model, original_loss, lr=1e-7, eps=1e-3)

    @torch.no_grad()
    def two_forwards() -> None:
        float(loss(batch))
        float(loss(batch))

    variants: dict[str, Callable[[int], object]] = {
        "two-forwards": lambda step: two_forwards(),
        "low-rank": lambda step: fast.step(step, [batch]),
        "low-rank-batched": lambda step: both.step(step, [batch]),
        "gaussian": lambda step: dense["gaussian"].step(step, [batch]),
        "rademacher": lambda step: dense["rademacher"].step(step, [batch]),
        "plain": lambda step: plain.step(step, [batch]),
        "original": lambda step: original.step(step, [batch]),
    }
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for at in range(options.rounds + 1):  # the first round warms up
        for name, run in variants.items():
            if name in ("plain", "original") and at > options.plain_rounds:
                continue
            taken = seconds(partial(run, at + 1), synchronize)
            if at:
                times[name].append(taken)
    refreshes = [seconds(partial(direction.begin, period * FAR + 1), synchronize) for period in range(1, 4)]
    refresh = [statistics.median(column) for column in zip(*refreshes, strict=True)]
    parameters = sum(each.numel() * each.element_size() for each in loaded.model.parameters())
    low = sum(each.numel() * each.element_size() for key, each in direction.state().items())
    extra = {"two-forwards": 0, "low-rank": low, "low-rank-batched": low, "plain": 0, "original": 0} | {
        kind: sum(each.numel() * each.element_size() for each in learner.direction.state().values())
        for kind, learner in dense.items()
    }
    rows = []
    for name, taken in times.items():
        share = [part / options.refresh_every if name.startswith("low-rank") else 0.0 for part in refresh]
        wall, cpu = (
            statistics.median(column) + part for column, part in zip(zip(*taken, strict=True), share, strict=True)
        )
        pairs = list(zip(taken, times["two-forwards"], strict=False))
        ratios = [statistics.median((step[at] + share[at]) / bare[at] for step, bare in pairs) for at in (0, 1)]
        rows.append(
            {
                "case": f"{Path(options.model).name}, batch {len(batch)}, {options.dtype}",
                "variant": name,
                "median_ms": round(wall * 1000, 2),
                "ratio_to_original": round(wall / statistics.median(each[0] for each in times["original"]), 4),
                "ratio_to_two_forwards": round(ratios[0], 4),
                "extra_memory_bytes": extra.get(name),
                "step_s": round(wall, 5),
                "step_cpu_s": round(cpu, 5),
                "rounds": len(taken),
                "times_two_forwards": round(ratios[0], 4),
                "times_two_forwards_cpu": round(ratios[1], 4),
            }
        )
        print(f"{name:14s} {wall:8.4f} s ({ratios[0]:.3f} x two forwards)", end="  ")
        print(f"{cpu:8.4f} s of CPU time ({ratios[1]:.3f} x)")
    print(f"a refresh      {refresh[0]:8.4f} s, once in {options.refresh_every} steps")
    write_result(
        "step_time",
        rows,
        out=options.out,
        settings={
            "rank": options.rank,
            "weights_bytes": parameters,
            "precision": options.precision,
            "refresh_every": options.refresh_every,
            "tokens_per_row": round(statistics.mean(len(row.prompt_ids) for row in batch), 1),
            "longest_row": max(len(row.prompt_ids) for row in batch),
            "refresh_s": round(refresh[0], 4),
            "refresh_cpu_s": round(refresh[1], 4),
        },
        notes=[
            "Medians over rounds in which the variants take turns; ratios are medians of the ratios within a round.",
            "low-rank includes its share of a refresh: the merge into the weights and the new right factors.",
            "extra_memory_bytes is what a variant keeps between steps beside the weights; activations are not in it.",
            "CPU time leaves out what the process waited while the machine did other work (see load_average).",
        ],
    )


if __name__ == "__main__":
    main()
