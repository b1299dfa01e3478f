"""What each of two processes does in test_distributed.py; started by torchrun, writes one JSON file per rank."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

from optaware.errors import InputError
from optaware.train import ZerothOrder, ZerothOrderMixin
from optaware.train._digest import weights_digest
from optaware.train.distributed import Ranks

torch.set_num_threads(1)


def batches(count: int) -> list[torch.Tensor]:
    source = torch.Generator().manual_seed(5)
    return [torch.randint(0, 250, (4, 9), generator=source) for _ in range(count)]


def load(folder: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


def queries(folder: str, method: str, **settings: Any) -> str:
    """All processes see the same batches."""
    model = load(folder)
    optimizer = ZerothOrder(model, method, lr=1e-3, share="queries", **settings)
    for ids in batches(12):
        optimizer.estimate(lambda ids=ids: model(input_ids=ids, labels=ids).loss)
        optimizer.step()
    return weights_digest(model.state_dict())


def halves(folder: str, out: Path, rank: int, size: int) -> str:
    """Six steps by all processes, the state saved; the other six by whoever takes it up, here these processes."""
    model = load(folder)
    optimizer = ZerothOrder(model, "fast", lr=1e-3, share="queries", queries=3, update="momentum")
    for ids in batches(12)[:6]:
        optimizer.estimate(lambda ids=ids: model(input_ids=ids, labels=ids).loss)
        optimizer.step()
    state = {"optimizer": optimizer.state_dict(), "model": model.state_dict()}
    if rank == 0:
        torch.save(state, out / f"half{size}.pt")
    return second_half(folder, state)


def second_half(folder: str, state: dict[str, Any]) -> str:
    model = load(folder)
    optimizer = ZerothOrder(model, "fast", lr=1e-3, share="queries", queries=3, update="momentum")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    for ids in batches(12)[6:]:
        optimizer.estimate(lambda ids=ids: model(input_ids=ids, labels=ids).loss)
        optimizer.step()
    return weights_digest(model.state_dict())


def data(folder: str, rank: int, size: int) -> str:
    """Each process has one of two parts of each batch; one process has both."""
    model = load(folder)
    optimizer = ZerothOrder(model, "fast", lr=1e-3)
    for ids in batches(12):
        parts = ids.chunk(2)
        for part in parts if size == 1 else [parts[rank]]:
            optimizer.estimate(lambda part=part: model(input_ids=part, labels=part).loss)
        optimizer.step()
    return weights_digest(model.state_dict())


class ZOTrainer(ZerothOrderMixin, Trainer):
    pass


def trainer(folder: str, out: Path, size: int) -> str:
    """Two rows a device and step, four in all."""
    args = TrainingArguments(
        output_dir=str(out / f"trainer{size}"),
        max_steps=4,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2 // size,
        learning_rate=1e-3,
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
        save_strategy="no",
    )
    rows = [{"input_ids": row, "labels": row} for ids in batches(6) for row in ids]
    made = ZOTrainer(model=load(folder), args=args, train_dataset=rows)
    made.train()
    return weights_digest(made.model.state_dict())


def differing(folder: str, rank: int) -> str:
    model = load(folder)
    if rank:
        with torch.no_grad():
            model.model.norm.weight[0] += 1
    optimizer = ZerothOrder(model, "fast", seed=rank)
    ids = batches(1)[0]
    try:
        optimizer.estimate(lambda: model(input_ids=ids, labels=ids).loss)
    except InputError as error:
        return str(error)
    return "no error"


def scenarios(folder: str, out: Path, rank: int, size: int) -> dict[str, str]:
    return {
        "queries": queries(folder, "fast", queries=3),
        "one query": queries(folder, "fast", journal=out / f"queries{size}.bin"),
        "halves": halves(folder, out, rank, size),
        "data": data(folder, rank, size),
        "differing": differing(folder, rank) if size > 1 else "",
        "trainer": trainer(folder, out, size),
    }


if __name__ == "__main__":
    model_dir, target = sys.argv[1], Path(sys.argv[2])
    with Ranks.joined(timeout_s=120) as joined:
        if len(sys.argv) > 3:  # one process leaves in the middle of things
            if joined.rank == 1:
                os._exit(0)
            try:
                joined.wait()
            except Exception as error:
                (target / "lost.json").write_text(json.dumps([type(error).__name__, str(error)]))
        else:
            found = scenarios(model_dir, target, joined.rank, joined.size)
            (target / f"rank{joined.rank}.json").write_text(json.dumps(found))
