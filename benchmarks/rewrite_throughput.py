"""Seconds per row of rewriting COPA premises and of one-word judging: shared prefix against one prompt per row.

    python benchmarks/rewrite_throughput.py --threads 2

Both ways run the same prompts with the same model in one process, alternating chunk by chunk:

- `per-row-prefix`: `transformers`' own `generate` at batch 12, left-padded, the whole prompt of every row;
- `shared-prefix`: `optaware.models.generate`, all rows in one call.

The prompts are made here (instructions, few-shot examples, the row), so that the figures do not move with the
templates of the library. The rows are premises of COPA's kind written for this file; `--data` takes the real ones.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from _result import write_result
from optaware._io import read_jsonl
from optaware.models import Generation, generate, load_model
from optaware.records import ModelRef

REWRITE = """You rewrite one sentence of a training set. Keep who did what to whom, when and why. Do not add facts, do \
not drop facts, do not explain, and do not hint at what happened before or after. Use plain, common words in a direct \
order, about as many as before. Answer with the rewritten sentence only, on one line."""
REWRITE_SHOTS = [
    ("The man lost his balance on the ladder.", "On the ladder, the man lost his footing."),
    ("The girl squeezed the tube of toothpaste.", "The girl pressed on the toothpaste tube."),
    ("My computer crashed.", "My computer stopped working."),
    (
        "The police handcuffed the suspect after a long chase.",
        "After a long chase, the police put cuffs on the suspect.",
    ),
    ("I forgot to close the window before the storm.", "Before the storm, I did not remember to shut the window."),
    ("The couple travelled south for the winter.", "For the winter, the couple went to the south."),
    ("The child's mother refused to buy him the toy.", "The mother of the child would not buy him the toy."),
    ("The tenants were locked out of their flat.", "The people who rented the flat could not get into it."),
    ("The lorry crashed into the motorcycle on the bridge.", "On the bridge, the lorry ran into the motorcycle."),
    ("I refilled my water bottle.", "I filled my water bottle again."),
]
JUDGE = """You compare two sentences. Answer "same" when both say the same thing about the same people and things. \
Answer "different" when one of them says something that the other does not, swaps who did what, or changes a number, a \
name, a time or a negation. Answer with one word."""
JUDGE_SHOTS = [
    ("The man lost his balance on the ladder.", "On the ladder, the man lost his footing.", "same"),
    ("The dog chased the cat.", "The cat chased the dog.", "different"),
    ("I bought three apples.", "I bought four apples.", "different"),
    ("My computer crashed.", "My computer stopped working.", "same"),
    ("She did not open the letter.", "She opened the letter.", "different"),
    ("The couple travelled south for the winter.", "For the winter, the couple went to the south.", "same"),
    ("The boy gave his sister the book.", "His sister gave the boy the book.", "different"),
    ("I refilled my water bottle.", "I filled my water bottle again.", "same"),
]
MODEL = "qwen2.5-coder-1.5b-instruct"
NOTE = (
    "row_s is wall-clock time and moves with what else the machine does (device.load_average); row_cpu_s is processor "
    "time of this process over all its threads. The two ways alternate, so that both meet the same load."
)
SUBJECTS = ["The gardener", "My neighbour", "The young teacher", "The bus driver", "A tired nurse", "The boy"]
EVENTS = [
    "put a blanket over the plants.",
    "heard a loud noise in the kitchen.",
    "missed the last train home.",
    "found an old letter in the drawer.",
    "turned down the job offer.",
    "wore a thick coat to the market.",
    "dropped the tray in front of the guests.",
    "asked the clerk for a refund.",
]


def premises(data: Path | None, count: int) -> list[str]:
    if data:
        return [row["premise"] for row in read_jsonl(data)[:count]]
    pairs = [f"{subject} {event}" for event in EVENTS for subject in SUBJECTS]
    return [pairs[index * 7 % len(pairs)] for index in range(count)]


def chat(tokenizer: Any, system: str, turns: list[tuple[str, str]], question: str) -> list[int]:
    messages = [{"role": "system", "content": system}]
    for asked, answered in turns:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    messages.append({"role": "user", "content": question})
    ids: list[int] = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return ids


def pair(a: str, b: str) -> str:
    return f"1: {a}\n2: {b}"


def per_row(model: Any, tokenizer: Any, prompts: list[list[int]], new: int, batch: int) -> list[list[int]]:
    """What one would write with transformers: batches of whole prompts, left-padded."""
    replies = []
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        width = max(map(len, part))
        ids = torch.tensor([[pad] * (width - len(row)) + row for row in part], device=model.device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in part], device=model.device)
        with torch.no_grad():
            out = model.generate(
                input_ids=ids, attention_mask=mask, max_new_tokens=new, do_sample=False, pad_token_id=pad
            )
        replies += [row[width:].tolist() for row in out]
    return replies


class Clock:
    """Adds up wall-clock and processor seconds of blocks. On a shared machine only the latter can be compared."""

    def __init__(self) -> None:
        self.wall_s = self.cpu_s = 0.0

    def __enter__(self) -> Clock:
        self.wall_s -= time.perf_counter()
        self.cpu_s -= time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall_s += time.perf_counter()
        self.cpu_s += time.process_time()


def measure(
    model: Any, tokenizer: Any, case: str, prompts: list[list[int]], new: int, args: argparse.Namespace
) -> tuple[list[dict[str, Any]], list[Generation]]:
    """Time both ways on the same chunks, in turn, and then all rows in one call."""
    ends = {tokenizer.eos_token_id, tokenizer.pad_token_id}
    sample = prompts[: args.compare]
    per_row_prefix, chunked, one_call = Clock(), Clock(), Clock()
    slow: list[list[int]] = []
    ours: list[Generation] = []
    for start in range(0, len(sample), args.chunk):
        part = sample[start : start + args.chunk]
        with per_row_prefix:
            slow += per_row(model, tokenizer, part, new, args.baseline_batch)
        with chunked:
            ours += generate(model, tokenizer, part, max_new_tokens=new)
    with one_call:
        whole = generate(model, tokenizer, prompts, max_new_tokens=new)
    same = sum(
        [token for token in reply if token not in ends] == list(mine.token_ids)
        for reply, mine in zip(slow, ours, strict=True)
    )

    def row(variant: str, clock: Clock, count: int, **more: Any) -> dict[str, Any]:
        figures = {
            "row_s": clock.wall_s / count,
            "row_cpu_s": clock.cpu_s / count,
            "rows_per_s": count / clock.wall_s,
            "times_per_row_prefix": (per_row_prefix.wall_s / len(sample)) / (clock.wall_s / count),
            "times_per_row_prefix_cpu": (per_row_prefix.cpu_s / len(sample)) / (clock.cpu_s / count),
        }
        figures = {name: round(value, 4) for name, value in figures.items()}
        print(case, variant, figures, flush=True)
        return {"case": case, "variant": variant, "rows": count, **figures, **more}

    shape = {
        "prompt_tokens": round(sum(map(len, prompts)) / len(prompts), 1),
        "shared_prefix_tokens": whole[0].shared_prefix_tokens,
        "new_tokens": round(sum(item.completion_tokens for item in whole) / len(whole), 1),
    }
    return [
        row("per-row-prefix", per_row_prefix, len(sample), batch=args.baseline_batch, **shape),
        row("shared-prefix, alternating chunks", chunked, len(sample), chunk=args.chunk, same_replies=same, **shape),
        row("shared-prefix, one call", one_call, len(prompts), **shape),
    ], whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=MODEL, help="path, hub name or packaged name of a chat model")
    parser.add_argument("--data", type=Path, help="JSONL with a `premise` column")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--compare", type=int, default=24, help="rows that both ways run")
    parser.add_argument("--chunk", type=int, default=12, help="rows before the other way has its turn")
    parser.add_argument("--baseline-batch", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--dtype", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    loaded = load_model(ModelRef(name=args.model, dtype=args.dtype))
    model, tokenizer = loaded.model, loaded.tokenizer
    texts = premises(args.data, args.rows)
    prompts = [chat(tokenizer, REWRITE, REWRITE_SHOTS, text) for text in texts]
    generate(model, tokenizer, prompts[:2], max_new_tokens=2)  # The first run pays for memory and kernel choice.
    rows, rewrites = measure(model, tokenizer, "rewrite", prompts, 48, args)
    shots = [(pair(a, b), verdict) for a, b, verdict in JUDGE_SHOTS]
    judged = [
        chat(tokenizer, JUDGE, shots, pair(text, reply.text.strip()))
        for text, reply in zip(texts, rewrites, strict=True)
    ]
    more, verdicts = measure(model, tokenizer, "judge", judged, 1, args)
    for text, reply, verdict in list(zip(texts, rewrites, verdicts, strict=True))[:6]:
        print(f"  {text} -> {reply.text.strip()} [{verdict.text.strip()}]")
    settings = {
        "model": Path(args.model).name,
        "dtype": args.dtype,
        "threads": args.threads,
        "data": args.data.name if args.data else "premises of this file",
        "new_tokens_at_most": {"rewrite": 48, "judge": 1},
    }
    print(write_result("rewrite_throughput", rows + more, out=args.out, settings=settings, notes=[NOTE]))


if __name__ == "__main__":
    main()
