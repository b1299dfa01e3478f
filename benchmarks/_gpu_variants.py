"""Step time and memory of the fused step against the original algorithm, on the shape of Llama-3.2-1B with random weights.

python benchmarks/_gpu_variants.py --out benchmarks/results/step_time_h100.json
"""

from __future__ import annotations

import argparse
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from _result import write_result
from optaware.models import EncodedExample, OptionScorer
from optaware.train import PlainMeZO
from optaware.train.gpu import FusedLearner
from optaware.train.schedules import Settings

LR, EPS = 1e-7, 1e-3


def llama_1b(small: bool = False) -> LlamaForCausalLM:
    """1.236 B parameters, tied embeddings; `small` for a look on a machine without a GPU."""
    sizes: dict[str, Any] = {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16}
    sizes |= {"num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256}
    if small:
        sizes |= {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
        sizes |= {"num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512}
    config = LlamaConfig(**sizes, max_position_embeddings=4096, rms_norm_eps=1e-5, tie_word_embeddings=True)
    device = "cpu" if small else "cuda"
    torch.manual_seed(0)
    with torch.device(device):
        torch.set_default_dtype(torch.bfloat16)
        model = LlamaForCausalLM(config)
        torch.set_default_dtype(torch.float32)
    return model.to(torch.bfloat16).eval()


def rows_of(count: int, length: int, vocabulary: int) -> list[EncodedExample]:
    source = torch.Generator().manual_seed(0)
    made = []
    for at in range(count):
        prompt = torch.randint(10, vocabulary, (length,), generator=source).tolist()
        made.append(EncodedExample(f"r/{at}", tuple(prompt), ((7,), (9,)), at % 2))
    return made


def timed(run: Callable[[int], object], rounds: int, first: int = 1) -> list[float]:
    """Wall-clock milliseconds of each call, the device idle before and after."""
    found = []
    for at in range(rounds):
        torch.cuda.synchronize()
        started = time.perf_counter()
        run(first + at)
        torch.cuda.synchronize()
        found.append(1e3 * (time.perf_counter() - started))
    return found


def measure(rows: list[EncodedExample], case: str, rounds: int) -> list[dict[str, Any]]:
    """All variants on one batch, each on a model of its own with the same weights."""
    length = len(rows[0].prompt_ids)
    table: list[dict[str, Any]] = []
    base, two = 0, 0.0
    original_ms = 0.0
    for name in ("two-forwards", "original", "plain", "dense", "dense-residual", "low-rank"):
        gc.collect()
        torch.cuda.empty_cache()
        model = llama_1b()
        scorer = OptionScorer(model, SimpleNamespace(pad_token_id=0, eos_token_id=0))
        weights = torch.cuda.memory_allocated()

        def loss(batch: Any, scorer: OptionScorer = scorer) -> torch.Tensor:
            return scorer.loss(batch, "options")

        def each_option(batch: Any, scorer: OptionScorer = scorer) -> torch.Tensor:
            flat = [EncodedExample(row.id, row.prompt_ids, (o,), 0) for row in batch for o in row.option_ids]
            scores = scorer.option_logprobs(flat).reshape(len(batch), -1)
            labels = torch.tensor([row.label for row in batch], device=scores.device)
            return torch.nn.functional.cross_entropy(scores, labels)

        @torch.no_grad()
        def two_forwards(_: int, loss: Any = loss) -> None:
            float(loss(rows))
            float(loss(rows))

        torch.cuda.reset_peak_memory_stats()
        learner: Any = None
        if name == "two-forwards":
            run: Callable[[int], object] = two_forwards
        elif name in ("original", "plain"):
            learner = PlainMeZO(model, each_option if name == "original" else loss, lr=LR, eps=EPS)
            run = lambda step, learner=learner: learner.step(step, [rows])  # noqa: E731
        else:
            direction = "low-rank" if name == "low-rank" else "gaussian"
            rounding = "residual" if name.endswith("residual") else "stochastic"
            learner = FusedLearner(
                model, "options", direction=direction, settings=lambda step: Settings(LR, EPS, 1),
                refresh_every=10, rank=8, rounding=rounding,
            )  # fmt: skip
            run = lambda step, learner=learner: learner.step(step, [rows])  # noqa: E731
        slow = name in ("original", "plain")
        timed(run, 2 if slow else 3)
        times = timed(run, max(5, rounds // 6) if slow else rounds, first=4)
        torch.cuda.synchronize()
        peak, held = torch.cuda.max_memory_allocated(), torch.cuda.memory_reserved()
        median = statistics.median(times)
        extra: dict[str, Any] = {}
        if name == "two-forwards":
            base, two = peak, median
        if name == "original":
            original_ms = median
        if isinstance(learner, FusedLearner):
            mean = statistics.mean(times)
            extra = {"mean_ms": round(mean, 3), "device_ms": round(device_ms(learner), 3), "graphs": learner.graphs}
        table.append(
            {
                "case": case,
                "variant": name,
                "median_ms": round(median, 3),
                "least_ms": round(min(times), 3),
                "rounds": len(times),
                "ratio_to_original": round(median / original_ms, 4) if original_ms else None,
                "ratio_to_two_forwards": round(median / two, 4),
                "peak_memory_bytes": peak,
                "extra_memory_bytes": peak - base,
                "extra_memory_ratio": round((peak - base) / base, 4),
                "reserved_memory_bytes": held,
                "weights_bytes": weights,
                "tokens_per_row": length,
                **extra,
            }
        )
        print({key: value for key, value in table[-1].items() if key not in ("case", "weights_bytes")}, flush=True)
        del model, scorer, learner, run, loss, each_option, two_forwards
    return table


def device_ms(learner: FusedLearner) -> float:
    """Device time of the captured graphs of one step, back to back."""
    graphs = [*learner._probes.values(), *learner._updates.values()]
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    stream = learner._stream
    with torch.cuda.stream(stream):
        start.record(stream)
        for _ in range(10):
            for graph in graphs:
                graph.replay()
        end.record(stream)
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lengths", type=int, nargs="*", default=[64, 256])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    table = []
    for length in options.lengths:
        rows = rows_of(options.batch_size, length, 128256)
        case = f"Llama-3.2-1B shape, random weights, bf16, {options.batch_size} x {length}"
        table += measure(rows, case, options.rounds)
        write_result(
            "step_time",
            table,
            out=options.out,
            settings={"rank": 8, "refresh_every": 10, "options": 2, "option_tokens": 1, "lr": LR, "eps": EPS},
            notes=[
                "median_ms is the wall-clock time of a whole step, host work and the read of the losses included.",
                "mean_ms of low-rank includes its refreshes: the merge into the weights and new right factors, 1 in 10.",
                "device_ms is the replay of a step's graphs alone. Memory is beyond that of two-forwards on this batch.",
            ],
        )


if __name__ == "__main__":
    main()
