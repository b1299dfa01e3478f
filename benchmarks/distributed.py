"""Queries per second of one process and of several that share a step's queries, and whether they end at the same bits.

Starts itself under torchrun, once with one process and once with `--processes` for each backend, on a randomly
initialised model of the Llama-3.2-1B shape (or a tiny one), and compares digests of the weights after the last step.

    python benchmarks/distributed.py                                  # on a machine with two GPUs
    python benchmarks/distributed.py --shape tiny --backends gloo     # anywhere
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from _result import write_result
from optaware.train import ZerothOrder
from optaware.train._digest import weights_digest
from optaware.train.distributed import Ranks

SHAPES: dict[str, dict[str, Any]] = {
    "llama-3.2-1b": {
        "vocab_size": 128_256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
    },
    "tiny": {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
}


DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def model_of(shape: str, dtype: str, device: torch.device) -> LlamaForCausalLM:
    """A model of the shape in evaluation mode."""
    config = LlamaConfig(**SHAPES[shape], max_position_embeddings=2048, tie_word_embeddings=True)
    default = torch.get_default_dtype()
    torch.set_default_dtype(DTYPES[dtype])
    try:
        with torch.device(device):
            return LlamaForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(default)


@torch.no_grad()
def fill(model: torch.nn.Module, device: torch.device) -> None:
    """Draw the weights anew, the same ones each time."""
    source = torch.Generator(device).manual_seed(0)
    for parameter in model.parameters():
        parameter.fill_(1.0) if parameter.ndim == 1 else parameter.normal_(0.0, 0.02, generator=source)


def measure(
    options: argparse.Namespace, ranks: Ranks, queries: int, model: Any, device: torch.device
) -> dict[str, Any]:
    """Times of `steps` steps after some that warm up, and the digest of the weights at the end."""
    fill(model, device)
    optimizer = ZerothOrder(model, options.method, lr=1e-6, queries=queries, share="queries")
    source = torch.Generator().manual_seed(1)
    times = []
    for step in range(options.warm_up + options.steps):
        ids = torch.randint(0, 500, (options.rows, options.tokens), generator=source).to(device)
        labels = torch.randint(0, 2, (options.rows,), generator=source).to(device)

        def loss(ids: torch.Tensor = ids, labels: torch.Tensor = labels) -> torch.Tensor:
            logits = model(input_ids=ids, logits_to_keep=1, use_cache=False).logits[:, -1, :2].float()
            return torch.nn.functional.cross_entropy(logits, labels)

        ranks.wait()
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        optimizer.estimate(loss)
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if step >= options.warm_up:
            times.append(time.perf_counter() - started)
    optimizer.close()
    return {
        "queries": queries,
        "step_s": statistics.median(times),
        "digest": weights_digest(dict(model.named_parameters())),
    }


def work(options: argparse.Namespace) -> None:
    """What each process does; the first one writes what was found."""
    torch.set_num_threads(1)
    with Ranks.joined(backend=options.backends[0], timeout_s=100) as ranks:
        device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
        found = {}
        for dtype in options.dtypes:
            model = model_of(options.shape, dtype, device)
            for count in options.queries:
                found[f"{dtype}, {count} queries"] = measure(options, ranks, count, model, device)
            del model
        for entry in found.values():
            ranks.check_same({"weights at the end": entry["digest"]})
        exchanges = []
        for _ in range(50):
            ranks.wait()
            started = time.perf_counter()
            counts = [len(ranks.share(4, rank)) for rank in range(ranks.size)]
            ranks.joint([0.0] * counts[ranks.rank], counts)
            exchanges.append(time.perf_counter() - started)
        if ranks.first:
            options.worker.write_text(json.dumps({"found": found, "exchange_s": statistics.median(exchanges)}))


def launch(options: argparse.Namespace, processes: int, backend: str, target: Path) -> dict[str, Any]:
    """Run the workers; what the first one wrote."""
    own = [str(Path(__file__)), *sys.argv[1:], "--worker", str(target), "--backends", backend]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", *own]
    subprocess.run(command, check=True)
    found: dict[str, Any] = json.loads(target.read_text())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="llama-3.2-1b", choices=sorted(SHAPES))
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--backends", nargs="+", default=["nccl", "gloo"], choices=["nccl", "gloo"])
    parser.add_argument("--queries", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--dtypes", nargs="+", default=["bf16", "fp16"], choices=list(DTYPES))
    parser.add_argument("--method", default="fast")
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--warm-up", type=int, default=3)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        work(options)
        return
    with tempfile.TemporaryDirectory() as scratch:
        alone = launch(options, 1, options.backends[0], Path(scratch) / "alone.json")
        together = {
            backend: launch(options, options.processes, backend, Path(scratch) / f"{backend}.json")
            for backend in options.backends
        }
    rows: list[dict[str, Any]] = []
    for case, one in alone["found"].items():
        variants = {"1 process": alone} | {
            f"{options.processes} processes, {name}": run for name, run in together.items()
        }
        for variant, run in variants.items():
            entry = run["found"][case]
            rows.append(
                {
                    "case": f"{options.shape}, {options.rows} x {options.tokens} tokens, {case}",
                    "variant": variant,
                    "step_ms": round(1000 * entry["step_s"], 3),
                    "queries_per_s": round(entry["queries"] / entry["step_s"], 3),
                    "times_one_process": round(one["step_s"] / entry["step_s"], 4),
                    "same_bits_as_one_process": entry["digest"] == one["digest"],
                    "exchange_ms": round(1000 * run["exchange_s"], 4),
                }
            )
            print({key: value for key, value in rows[-1].items() if key != "case"}, f"({case})")
    write_result(
        "distributed",
        rows,
        out=options.out,
        settings={"method": options.method, "steps": options.steps, "warm_up": options.warm_up},
        notes=[
            "Median step of the first process, all processes starting each step together; weights are random.",
            "exchange_ms: one exchange of four losses, which a step makes once.",
        ],
    )
    if not all(row["same_bits_as_one_process"] for row in rows):
        sys.exit("the processes did not come to the bits of one")


if __name__ == "__main__":
    main()
