"""In the style of the transformers examples: a causal language model, the Trainer, a few lines of text."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, set_seed

TEXT = ["the film is good", "the film is bad", "a good story", "a bad story", "good acting", "bad acting"]


def main() -> None:
    """Train, score, write what was measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model_name_or_path", default=os.environ.get("MODEL"))
    parser.add_argument("--learning_rate", type=float, default=1e-3)
    parser.add_argument("--warmup_steps", type=int, default=0)
    parser.add_argument("--max_steps", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output_dir", type=Path, required=True)
    options = parser.parse_args()

    set_seed(options.seed)
    tokenizer = AutoTokenizer.from_pretrained(options.model_name_or_path)
    model = AutoModelForCausalLM.from_pretrained(options.model_name_or_path)
    rows = []
    for text in TEXT:
        ids = tokenizer(text)["input_ids"][:12]
        rows.append({"input_ids": torch.tensor(ids[:8]), "labels": torch.tensor(ids[:8])})
    arguments = TrainingArguments(
        output_dir=str(options.output_dir),
        learning_rate=options.learning_rate,
        warmup_steps=options.warmup_steps,
        max_steps=options.max_steps,
        per_device_train_batch_size=2,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=True,
        seed=options.seed,
    )
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    measured = trainer.evaluate()
    (options.output_dir / "all_results.json").write_text(json.dumps({"eval_loss": measured["eval_loss"]}), "utf-8")


if __name__ == "__main__":
    main()
