"""The stage as it is put together: a loaded model, the real scorer, training, the kept weights loaded again."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from optaware.models import EncodedExample, OptionScorer, encode, load_model, tiny_model
from optaware.records import FOLoRA, Method, MeZO, ModelRef, RenderedExample
from optaware.train import train

METHODS: dict[str, Method] = {
    "low-rank": MeZO(lr=1e-3, eps=1e-2, direction="low-rank", rank=4, refresh_every=5),
    "plain": MeZO(lr=1e-3, eps=1e-2),
    "fo-lora": FOLoRA(lr=1e-2, rank=4),
}


def examples(count: int, tokenizer: Any) -> list[EncodedExample]:
    """Which of two words an example names: easily learnt."""
    rendered = [
        RenderedExample(
            id=str(index),
            prompt=f"{index % 7} {'left' if index % 2 else 'right'}:",
            options=(" yes", " no"),
            label=index % 2,
        )
        for index in range(count)
    ]
    return encode(rendered, tokenizer, 64)


@pytest.mark.parametrize("objective", ["options", "language-model"])
@pytest.mark.parametrize("name", METHODS)
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_loss_falls_and_the_kept_weights_score_the_same(
    kit: Any, tmp_path: Path, name: str, objective: Literal["options", "language-model"]
) -> None:
    loaded = load_model(ModelRef(name=str(tiny_model(tmp_path / "tiny")), dtype="bf16"), device="cpu")
    scorer = OptionScorer(loaded.model, loaded.tokenizer)
    rows = examples(24, loaded.tokenizer)
    before = scorer.predict(rows, objective)[1].loss
    steps = 12 if name == "fo-lora" else 60
    spec = kit.run_spec(METHODS[name], "bf16", keep_weights=True, steps=steps, eval_every=steps // 2, batch_size=8)
    outcome = train(
        spec,
        kit.RunFolder(tmp_path / "run"),
        loaded=loaded,
        scorer=scorer,
        train_rows=rows,
        dev_rows=rows,
        objective=objective,
    )
    assert before is not None
    assert outcome.dev is not None
    assert outcome.dev.loss is not None
    assert outcome.dev.loss < before - 0.02
    after = scorer.predict(rows, objective)[0]
    assert OptionScorer(loaded.model, loaded.tokenizer).predict(rows, objective)[0] == after
    if name == "fo-lora":
        from peft import PeftModel

        base = load_model(ModelRef(name=str(tmp_path / "tiny"), dtype="bf16"), device="cpu")
        again, tokenizer = PeftModel.from_pretrained(base.model, tmp_path / "run/weights").eval(), base.tokenizer
    else:
        kept = load_model(ModelRef(name=str(tmp_path / "run/weights"), dtype="bf16"), device="cpu")
        again, tokenizer = kept.model, kept.tokenizer
    with torch.no_grad():
        assert OptionScorer(again, tokenizer).predict(rows, objective)[0] == after
