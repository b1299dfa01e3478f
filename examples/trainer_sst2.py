"""Fine-tune a causal language model on SST-2 with forward passes only, under the stock `transformers.Trainer`.

    python examples/trainer_sst2.py --model smollm2-135m-instruct --steps 500

Several processes, each with rows of its own (only losses are exchanged):

    torchrun --nproc-per-node 2 examples/trainer_sst2.py --steps 500
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

from optaware.evaluate import evaluate
from optaware.models import OptionScorer, encode, load_model
from optaware.records import ModelRef, Protocol
from optaware.tasks import get_task, load_splits
from optaware.train import ZerothOrderMixin


class ZOTrainer(ZerothOrderMixin, Trainer):
    """The stock trainer, with forward passes only."""


def row(example: Any) -> dict[str, list[int]]:
    """Prompt and right answer as one text; the loss is on the answer."""
    answer = list(example.option_ids[example.label])
    prompt = list(example.prompt_ids)
    return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}


def main(arguments: list[str] | None = None) -> float:
    """Train, print the accuracy before and after, and return it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="asset, hub name or path")
    parser.add_argument("--data", type=Path, help="folder of data sets; by default as for any run")
    parser.add_argument("--out", type=Path, default=Path("runs/trainer-sst2"))
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--train", type=int, default=500, help="training rows")
    parser.add_argument("--test", type=int, default=200, help="test rows")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--lr", type=float, default=2e-5)
    parser.add_argument("--method", default="fast")
    parser.add_argument("--dtype", default="bf16", choices=["bf16", "fp32"])
    options = parser.parse_args(arguments)

    task = get_task("sst2")
    splits = load_splits(
        task, Protocol(name="free", train=options.train, dev=8, test=options.test), data_dir=options.data
    )
    loaded = load_model(ModelRef(name=options.model, dtype=options.dtype))
    train, test = (
        encode([task.render(example) for example in examples], loaded.tokenizer, 512)
        for examples in (splits.train, splits.test)
    )
    scorer = OptionScorer(loaded.model, loaded.tokenizer)
    _, before = evaluate(scorer, test, "options", None)
    trainer = ZOTrainer(
        model=loaded.model,
        args=TrainingArguments(
            output_dir=str(options.out),
            max_steps=options.steps,
            per_device_train_batch_size=options.batch_size,
            learning_rate=options.lr,
            lr_scheduler_type="constant",
            logging_steps=max(1, options.steps // 10),
            save_steps=max(1, options.steps // 2),
            report_to=[],
            use_cpu=loaded.device.type == "cpu",
        ),
        train_dataset=[row(example) for example in train],
        data_collator=DataCollatorForSeq2Seq(loaded.tokenizer),
        processing_class=loaded.tokenizer,
        method=options.method,
    )
    trainer.train()
    _, after = evaluate(scorer, test, "options", None)
    print(f"test accuracy on {after.n} rows: {before.accuracy:.3f} before, {after.accuracy:.3f} after training")
    return after.accuracy


if __name__ == "__main__":
    main()
