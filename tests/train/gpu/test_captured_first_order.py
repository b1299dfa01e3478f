"""First-order runs from captured graphs: those of the model as it is called, to the same bits again, on a full card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

from optaware._io import read_json
from optaware.models import EncodedExample, OptionScorer
from optaware.records import FOFull, FOLoRA
from optaware.train import train
from optaware.train.firstorder import AdamWLearner
from optaware.train.firstorder._gradient import Gradient
from optaware.train.objectives import TaskObjective


class Special:
    pad_token_id, eos_token_id = 0, 0


def rows(count: int) -> list[EncodedExample]:
    """Prompts of 3 to 20 tokens, so that batches come in several shapes."""
    source = torch.Generator().manual_seed(2)
    lengths = torch.randint(3, 21, (count,), generator=source).tolist()
    prompts = [torch.randint(11, 60, (length,), generator=source).tolist() for length in lengths]
    return [
        EncodedExample(f"r/{at}", tuple(prompt), ((5, 7, 8), (6,), (9, 10)), at % 3)
        for at, prompt in enumerate(prompts)
    ]


def run(kit: Any, folder: Path, method: FOFull | FOLoRA, should_stop: Any = None, dtype: Any = torch.bfloat16) -> Any:
    model = kit.llama(dtype, head_dim=32).to("cuda")
    folder.mkdir(exist_ok=True)
    (folder / "resolved.json").write_text("{}")
    train(
        kit.run_spec(method, steps=10, eval_every=3, batch_size=4),
        kit.RunFolder(folder),
        loaded=kit.Loaded(model, kit.Tokenizer()),
        scorer=OptionScorer(model, Special()),
        train_rows=rows(24),
        dev_rows=[],
        objective="options",
        should_stop=should_stop,
    )
    return model


def apart(model: Any, other: Any) -> float:
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return max(float((a.detach().float() - b.detach().float()).abs().max()) for a, b in pairs)


METHODS = [
    pytest.param(FOFull(lr=1e-3), torch.float32, id="full-fp32"),
    pytest.param(FOFull(lr=1e-3), torch.bfloat16, id="full-bf16"),
    pytest.param(FOLoRA(lr=1e-2, rank=4), torch.bfloat16, id="lora-bf16"),
]


@pytest.mark.parametrize(("method", "dtype"), METHODS)
def test_a_captured_run_is_the_run_by_calls(
    kit: Any, tmp_path: Path, method: FOFull | FOLoRA, dtype: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = kit.llama(dtype, head_dim=32).to("cuda")
    captured = run(kit, tmp_path / "captured", method, dtype=dtype)
    assert read_json(tmp_path / "captured" / "resolved.json")["step"] == "captured"
    again = run(kit, tmp_path / "again", method, dtype=dtype)
    assert apart(captured, again) == 0
    monkeypatch.setattr(Gradient, "__call__", lambda self, step, parts: self.clear() or self._called(step, parts)[0])
    called = run(kit, tmp_path / "called", method, dtype=dtype)
    if isinstance(method, FOFull):
        moved = apart(called, start)
        assert moved > 3e-3
        assert apart(captured, called) < (2e-4 if dtype == torch.float32 else 0.5 * moved)


def test_a_stopped_run_goes_on_to_the_same_bits(kit: Any, tmp_path: Path) -> None:
    whole = run(kit, tmp_path / "whole", FOFull(lr=1e-3))
    calls = iter(range(100))
    with pytest.raises(Exception, match="told to stop"):
        run(kit, tmp_path / "stopped", FOFull(lr=1e-3), should_stop=lambda: next(calls) == 5)
    assert apart(run(kit, tmp_path / "stopped", FOFull(lr=1e-3)), whole) == 0


def test_graphs_are_replayed_and_without_memory_made_anew_for_fewer_rows(
    kit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = kit.llama(torch.bfloat16, head_dim=32).to("cuda")
    learner = AdamWLearner(model, TaskObjective(OptionScorer(model, Special()), "options"), lr=1e-3)
    static = learner.gradient.static
    assert static is not None
    batch = rows(8)
    with learner.training():
        first = [learner.step(step, [batch]).loss for step in (1, 2, 3)]
        assert len(static.captures.captured("gradient")) == 1
        send = static.captures.send

        def full(examples: Any, *others: Any) -> Any:
            if len(examples) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
            return send(examples, *others)

        monkeypatch.setattr(static.captures, "send", full)
        halves = [learner.step(step, [batch]).loss for step in (4, 5)]
    assert learner.room.most_rows == 4
    assert learner.gradient.engine == "captured"
    assert static.captures.captured("gradient")
    assert sorted([*first, *halves], reverse=True) == [*first, *halves]


def test_dropout_is_left_to_the_model(kit: Any, tmp_path: Path) -> None:
    run(kit, tmp_path / "run", FOLoRA(lr=1e-2, rank=4, dropout=0.5))
    assert read_json(tmp_path / "run" / "resolved.json")["step"] == "not captured: it draws random numbers (dropout)"


def test_twice_computed_activations_are_left_to_the_model(kit: Any, tmp_path: Path) -> None:
    run(kit, tmp_path / "run", FOFull(lr=1e-3, gradient_checkpointing=True))
    assert read_json(tmp_path / "run" / "resolved.json")["step"] == "not captured: activations are computed twice"
