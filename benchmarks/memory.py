"""Peak memory of training against plain inference of the same batch, each variant on a model of its own.

- `inference`: the bare model, one forward pass after the other.
- `original`: the algorithm of MeZO as its paper and code have it, one row per answer option.
- `dense`, `low-rank`, …: ours as `optaware train` would make the step here (fused on CUDA, the check at its start
  included; else by hooks). `low-rank-host` is made from Python, without the check.
- `train-…`: a whole run of `optaware train` from the method's config, with the check at its start, two evaluations on
  as many rows and their checkpoints; `train-low-rank-host` has `host_residuals: true`.
- `adamw`, `lora`: first-order training, for comparison.

The peak is that of the steps alone, from a loaded model on: on CUDA what the allocator had handed out at most
(`peak_memory_bytes`), what it had taken from the device at most (`reserved_memory_bytes`: whole segments, pools of
graphs included) and what stays taken between steps (`kept_memory_bytes`); on CPU the largest resident size, each
variant in a process of its own.

    python benchmarks/memory.py --shape llama-1b --device cuda
    python benchmarks/memory.py --shape smollm2-135m --device cpu
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from _result import write_result

CHOSEN = (
    "inference",
    "original",
    "original-one-row",
    "dense-stochastic",
    "dense",
    "low-rank-stochastic",
    "low-rank",
    "low-rank-host",
    "train-low-rank-host",
    "train-low-rank",
    "train-dense-stochastic",
    "lora",
    "adamw",
)


def one(variant: str, shape: str, device: str, batch: int, length: int, steps: int) -> dict[str, Any]:
    """Figures of one variant, in this process."""
    import torch

    from _shapes import SHAPES, empty, llama, rows_of

    torch.set_num_threads(1)
    rows = rows_of(batch, length, SHAPES[shape]["vocab_size"])
    empty()
    if device == "cpu":  # so that the code itself is in memory before
        _close(_run(variant, llama("tiny", device), rows_of(2, 8, 512), 1)[1])
        empty()
    before = torch.cuda.memory_allocated() if device != "cpu" else 0
    model = llama(shape, device)
    weights = sum(each.numel() * each.element_size() for each in model.parameters())
    empty()
    _forget_peak(device)
    engine, learner = _run(variant, model, rows, steps)
    found = {"weights_bytes": weights, "peak_memory_bytes": _peak(device) - before, "engine": engine}
    if device != "cpu":
        found["reserved_memory_bytes"] = torch.cuda.max_memory_reserved() - before
        empty()
        found["kept_memory_bytes"] = torch.cuda.memory_reserved() - before
    _close(learner)
    return found


def _run(variant: str, model: Any, rows: list[Any], steps: int) -> tuple[str, Any]:
    """Make the steps of a variant: what made them, and the learner that is still to be closed."""
    from _shapes import make_step

    if variant.startswith("train-"):
        from _training import train_whole

        return train_whole(variant, model, rows, steps), None
    step = make_step("two-forwards" if variant == "inference" else variant, model, rows)
    for number in range(1, steps + 1):
        step.run(number)
    return step.engine, step.learner


def _close(learner: Any) -> None:
    if learner is not None:
        learner.close()


def _forget_peak(device: str) -> None:
    if device != "cpu":
        import torch

        torch.cuda.reset_peak_memory_stats()
        return
    try:
        Path("/proc/self/clear_refs").write_text("5", "ascii")
    except OSError:  # then the peak is that of the whole process
        print("the peak while loading cannot be left out here", file=sys.stderr)


def _peak(device: str) -> int:
    if device != "cpu":
        import torch

        torch.cuda.synchronize()
        return int(torch.cuda.max_memory_allocated())
    status = Path("/proc/self/status").read_text("ascii").splitlines()
    return 1024 * int(next(line.split()[1] for line in status if line.startswith("VmHWM")))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="llama-1b")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lengths", type=int, nargs="*", default=[64])
    parser.add_argument("--steps", type=int, default=12, help="steps of each variant; low-rank refreshes every 10")
    parser.add_argument("--variants", nargs="*", default=list(CHOSEN))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.one:
        found = one(options.one, options.shape, options.device, options.batch_size, options.lengths[0], options.steps)
        print(json.dumps(found))
        return
    table: list[dict[str, Any]] = []
    for length in options.lengths:
        base: dict[str, Any] = {}
        for name in options.variants:
            figures = _figures(name, length, options)
            base = base or (figures if name == "inference" else {})
            table.append(_row(name, length, figures, base, options))
            print({key: value for key, value in table[-1].items() if key != "case"}, flush=True)
            _write(table, options)


def _row(
    name: str, length: int, figures: dict[str, Any], base: dict[str, Any], options: argparse.Namespace
) -> dict[str, Any]:
    case = f"{options.shape} shape, random weights, bf16, {options.batch_size} x {length}"
    row: dict[str, Any] = {"case": case, "variant": name, **figures}
    for kind in ("peak", "reserved"):
        key = f"{kind}_memory_bytes"
        if key in figures and key in base:
            row["extra_memory_bytes" if kind == "peak" else "extra_reserved_bytes"] = figures[key] - base[key]
            row[f"{kind}_ratio_to_inference"] = round(figures[key] / base[key], 4)
    return row


def _write(table: list[dict[str, Any]], options: argparse.Namespace) -> None:
    write_result(
        "memory",
        table,
        out=options.out,
        settings={"rank": 8, "refresh_every": 10, "options": 2, "steps": options.steps},
        notes=[
            "peak_memory_bytes is the peak of the steps with the weights, from a loaded model on, the check of the "
            "fused step included; reserved_memory_bytes is the most that the allocator took from the device for it, "
            "kept_memory_bytes what it keeps between steps (pools of graphs; of the others, the weights). On CPU the "
            "peak holds the interpreter and the libraries too.",
            "Ratios are to plain inference of the same batch, one row per example, logits at the option tokens only.",
        ],
    )


def _figures(variant: str, length: int, options: argparse.Namespace) -> dict[str, Any]:
    if options.device == "cpu":
        return _in_process(variant, length, options)
    try:
        return one(variant, options.shape, options.device, options.batch_size, length, options.steps)
    except RuntimeError as error:
        return {"failed": str(error).splitlines()[0][:300]}


def _in_process(variant: str, length: int, options: argparse.Namespace) -> dict[str, Any]:
    command = [sys.executable, __file__, "--one", variant, "--shape", options.shape, "--device", options.device]
    command += ["--batch-size", str(options.batch_size), "--lengths", str(length), "--steps", str(options.steps)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"failed": lines[-1][:300] if lines else f"exit code {done.returncode}"}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
