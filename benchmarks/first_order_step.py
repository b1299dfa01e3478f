"""Time of a first-order step and of scoring dev rows, against the same without what this library does about them.

Variants take turns in one process on one batch of SST-2:

- `ours`: as `optaware train` makes it.
- `plain`: the output head multiplies what it is given (a slice with gaps between rows, which PyTorch takes row by row
  where the head is frozen), AdamW is PyTorch's default on the device, and on a GPU nothing is captured as a graph.

    python benchmarks/first_order_step.py --model smollm2-135m-instruct
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from _result import write_result
from optaware.models import EncodedExample, OptionScorer, encode, load_model
from optaware.models._introspect import unwrap
from optaware.records import FOFull, FOLoRA, ModelRef, Protocol
from optaware.tasks import get_task, load_splits
from optaware.train.firstorder import add_adapter, full, lora
from optaware.train.objectives import TaskObjective

Turn = Callable[[], float]


def build(loaded: Any, arm: str, plain: bool) -> tuple[Any, OptionScorer]:
    """A learner and a scorer on a copy of the model."""
    model = copy.deepcopy(loaded.model)
    config: Any = FOLoRA() if arm == "fo-lora" else FOFull()
    if arm == "fo-lora":
        model = add_adapter(model, config, 0)
    scorer = OptionScorer(model, loaded.tokenizer)
    learner = (lora if arm == "fo-lora" else full)(model, TaskObjective(scorer, "options"), config, 0)
    if plain:
        learner.gradient.static = None
        unwrap(model).get_output_embeddings()._forward_pre_hooks.clear()
        learner.optimizer = torch.optim.AdamW(learner.optimizer.param_groups, lr=config.lr, fused=None)
        for group in learner.optimizer.param_groups:
            group["fused"] = None
    return learner, scorer


def seconds(run: Callable[[], object]) -> float:
    """Wall-clock time of a call, the device's work included."""
    started = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(loaded: Any, arm: str, batch: list[EncodedExample], dev: list[EncodedExample], rounds: int) -> list[Any]:
    """Rows of one method: a step and scoring, `plain` and `ours` in turn; the first round warms up."""
    made = {name: build(loaded, arm, name == "plain") for name in ("plain", "ours")}
    times: dict[tuple[str, str], list[float]] = {}
    for at in range(rounds + 1):
        for name, (learner, scorer) in made.items():

            def step(learner: Any = learner, number: int = at + 1) -> None:
                with learner.training():
                    learner.step(number, [batch])

            for case, run in (("step", step), ("score", lambda scorer=scorer: scorer.score(dev))):
                taken = seconds(run)
                if at:
                    times.setdefault((case, name), []).append(taken)
    return [
        {
            "case": f"{arm}, {case} of {len(batch) if case == 'step' else len(dev)} rows",
            "variant": name,
            "median_s": statistics.median(taken),
            "rounds": len(taken),
            "plain_over_this": statistics.median(
                other / own for other, own in zip(times[case, "plain"], taken, strict=True)
            ),
        }
        for (case, name), taken in times.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="asset, hub name or path")
    parser.add_argument("--data", type=Path, help="folder of data sets; by default as for any run")
    parser.add_argument("--task", default="sst2")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--dev-rows", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    loaded = load_model(ModelRef(name=options.model, dtype="bf16"))
    task = get_task(options.task)
    protocol = Protocol(name="free", train=options.batch_size, dev=options.dev_rows, test=8)
    splits = load_splits(task, protocol, data_dir=options.data)
    batch, dev = (
        encode([task.render(row) for row in rows], loaded.tokenizer, 1024) for rows in (splits.train, splits.dev)
    )
    rows = [row for arm in ("fo-full", "fo-lora") for row in measure(loaded, arm, batch, dev, options.rounds)]
    for row in rows:
        print(
            f"{row['case']:28s} {row['variant']:6s} {row['median_s']:.3f} s  plain takes {row['plain_over_this']:.2f} x"
        )
    settings = {"task": options.task, "batch_size": options.batch_size, "dtype": "bf16", "threads": options.threads}
    notes = ["Medians over rounds in which the variants take turns; ratios are medians of the ratios within a round."]
    print(write_result("first_order_step", rows, out=options.out, settings=settings, notes=notes))


if __name__ == "__main__":
    main()
