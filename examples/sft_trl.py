"""Instruction tuning with forward passes only, under the stock `trl.SFTTrainer`, with or without LoRA.

    pip install "optaware[trl]"
    python examples/sft_trl.py --rows chats.jsonl --steps 1000 --lora-rank 8

Rows are JSONL as TRL reads them: `{"text": ...}`, `{"prompt": ..., "completion": ...}` or `{"messages": [...]}`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from datasets import Dataset
from peft import LoraConfig
from trl import SFTConfig, SFTTrainer

from optaware._io import read_jsonl
from optaware.models import load_model
from optaware.records import ModelRef
from optaware.train import ZerothOrderMixin


class ZOSFTTrainer(ZerothOrderMixin, SFTTrainer):
    """TRL's trainer, with forward passes only."""


def main(arguments: list[str] | None = None) -> list[dict[str, float]]:
    """Train, save the model (or the adapter), and return the log."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m-instruct", help="asset, hub name or path")
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/sft"))
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--accumulation", type=int, default=4)
    parser.add_argument("--lr", type=float, default=2e-5)
    parser.add_argument("--lora-rank", type=int, default=0, help="0: all parameters are trained")
    parser.add_argument("--method", default="fast")
    options = parser.parse_args(arguments)

    loaded = load_model(ModelRef(name=options.model, dtype="fp32"))
    lora = LoraConfig(r=options.lora_rank, lora_alpha=2 * options.lora_rank, task_type="CAUSAL_LM")
    trainer = ZOSFTTrainer(
        model=loaded.model,
        args=SFTConfig(
            output_dir=str(options.out),
            max_steps=options.steps,
            per_device_train_batch_size=options.batch_size,
            gradient_accumulation_steps=options.accumulation,
            learning_rate=options.lr,
            lr_scheduler_type="constant",
            logging_steps=max(1, options.steps // 10),
            bf16=False,
            gradient_checkpointing=False,
            report_to=[],
            use_cpu=loaded.device.type == "cpu",
        ),
        train_dataset=Dataset.from_list(read_jsonl(options.rows)),
        processing_class=loaded.tokenizer,
        peft_config=lora if options.lora_rank else None,
        method=options.method,
    )
    trainer.train()
    trainer.save_model()
    history: list[dict[str, float]] = trainer.state.log_history
    return history


if __name__ == "__main__":
    main()
