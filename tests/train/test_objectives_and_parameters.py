from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from optaware.errors import InputError, ModelError
from optaware.models import EncodedExample, OptionScorer, load_model, tiny_model
from optaware.records import LOZO, MeZO, ModelRef
from optaware.stats import macro_f1
from optaware.train import (
    MetricObjective,
    RewardObjective,
    TaskObjective,
    TwoPoint,
    choose_parameters,
    replay,
    train,
)
from optaware.train._losses import BatchLoss

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings(
        "ignore:.past_key_values. is deprecated:FutureWarning"
    ),  # PEFT 0.21 on transformers 5.24
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("tiny"))


def fresh(folder: Path, dtype: Any = "fp32") -> Any:
    return load_model(ModelRef(name=str(folder), dtype=dtype), device="cpu")


def rows(count: int, seed: int = 0) -> list[EncodedExample]:
    source = torch.Generator().manual_seed(seed)

    def ids(most: int) -> tuple[int, ...]:
        length = int(torch.randint(1, most + 1, (), generator=source))
        return tuple(torch.randint(0, 256, (length,), generator=source).tolist())

    return [EncodedExample(f"t/{i}", ids(9), (ids(3), ids(3)), i % 2) for i in range(count)]


@pytest.mark.parametrize("objective", ["options", "language-model"])
@torch.no_grad()
def test_copies_of_a_batch_have_the_loss_of_the_batch(folder: Path, objective: Any) -> None:
    loaded = fresh(folder)
    loss = TaskObjective(OptionScorer(loaded.model, loaded.tokenizer), objective)
    assert loss.can_copy
    parts = [rows(5), rows(3, seed=1)]
    whole = BatchLoss(loss, parts, most_copies=4)
    assert whole.copies(3) == pytest.approx([whole()] * 3, abs=1e-5)
    assert whole() == pytest.approx(float(loss([*parts[0], *parts[1]])), abs=1e-5)


def test_metrics_are_taken_over_the_whole_batch_whatever_its_parts() -> None:
    scores = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])

    class Scorer:
        def option_logprobs(self, batch: Any) -> Any:
            return scores[[int(row.id[2:]) for row in batch]]

    batch = rows(4)  # labels 0, 1, 0, 1; predicted 0, 0, 1, 0
    f1 = MetricObjective(Scorer(), "f1")
    expected = 1 - macro_f1([0, 1, 0, 1], [0, 0, 1, 0])
    assert expected == pytest.approx(1 - (2 / 5 + 0) / 2)
    for parts in ([batch], [batch[:1], batch[1:]]):
        assert BatchLoss(f1, parts)() == pytest.approx(expected)
        assert BatchLoss(MetricObjective(Scorer(), "accuracy"), parts)() == 0.75
    scores[0, 0] = torch.nan
    assert BatchLoss(f1, [batch])() != BatchLoss(f1, [batch])()


@torch.no_grad()
def test_any_reward_of_generated_text_can_be_maximised(folder: Path) -> None:
    loaded = fresh(folder)
    seen: list[list[str]] = []

    def reward(texts: list[str], batch: Any) -> list[float]:
        seen.append(texts)
        return [float(len(text)) for text in texts]

    loss = RewardObjective(reward, loaded.model, loaded.tokenizer, max_new_tokens=4)
    value = BatchLoss(loss, [rows(2), rows(1, seed=3)])()
    assert value == pytest.approx(-sum(len(text) for texts in seen for text in texts) / 3)
    assert [len(texts) for texts in seen] == [2, 1]
    from optaware.train import LowRank

    direction = LowRank(loaded.model, rank=2, refresh_every=5, seed=0)
    direction.begin(1)
    probe = TwoPoint(0.5).estimate(direction, BatchLoss(loss, [rows(3)]), [1, 2, 3])
    direction.close()
    assert any(above != below for above, below in probe.losses)  # generation feels the perturbation
    with pytest.raises(InputError, match="0 rewards for 2 texts"):
        RewardObjective(lambda texts, batch: [], loaded.model, loaded.tokenizer)(rows(2))


@pytest.mark.parametrize("kind", ["prefix", "prompt"])
@torch.no_grad()
def test_a_row_behind_virtual_tokens_scores_the_same_alone_and_padded(folder: Path, kind: Any) -> None:
    loaded = fresh(folder)
    model = choose_parameters(loaded.model, MeZO(parameters=kind, virtual_tokens=3), 5)
    scorer = OptionScorer(model, loaded.tokenizer)
    batch = rows(4)
    together = scorer.option_logprobs(batch)
    alone = torch.cat([scorer.option_logprobs([row]) for row in batch])
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-5)
    for row, scores in zip(batch, together.tolist(), strict=True):  # PEFT's own forward, row by row
        for option, score in zip(row.option_ids, scores, strict=True):
            ids = torch.tensor([[*row.prompt_ids, *option]])
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, -len(option) - 1 : -1]
            picked = logits.log_softmax(-1)[range(len(option)), list(option)]
            assert float(picked.mean()) == pytest.approx(score, abs=2e-5)


@torch.no_grad()
def test_a_prefix_starts_from_real_activations(folder: Path) -> None:
    """Behind the keys and values of some tokens, a text scores as it does behind these tokens themselves."""
    from optaware.train.parameters import _tokens

    loaded = fresh(folder)
    tokens = _tokens(loaded.model, 4, 7)[0].tolist()
    batch = rows(3)
    longer = [EncodedExample(row.id, (*tokens, *row.prompt_ids), row.option_ids, row.label) for row in batch]
    expected = OptionScorer(loaded.model, loaded.tokenizer).option_logprobs(longer)
    for kind in ("prefix", "prompt"):
        again = fresh(folder)
        model = choose_parameters(again.model, MeZO(parameters=kind, virtual_tokens=4), 7)  # type: ignore[arg-type]
        found = OptionScorer(model, again.tokenizer).option_logprobs(batch)
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("direction", ["gaussian", "low-rank"])
@pytest.mark.parametrize("kind", ["lora", "prefix", "prompt"])
def test_adapters_are_trained_saved_loaded_and_replayed(
    folder: Path, kit: Any, tmp_path: Path, kind: Any, direction: Any
) -> None:
    method = MeZO(parameters=kind, lora_rank=2, virtual_tokens=3, lr=1e-1, eps=1e-1, direction=direction, rank=1)
    spec = kit.run_spec(method, keep_weights=True, steps=4, eval_every=2)
    loaded = fresh(folder)
    base = {name: value.clone() for name, value in loaded.model.state_dict().items()}
    scorer = OptionScorer(loaded.model, loaded.tokenizer)
    train(
        spec,
        kit.RunFolder(tmp_path),
        loaded=loaded,
        scorer=scorer,
        train_rows=rows(6),
        dev_rows=[],
        objective="options",
    )
    assert isinstance(loaded.model, PeftModel)
    test = rows(5, seed=9)
    trained = scorer.score(test)
    again = fresh(folder)
    before = OptionScorer(again.model, again.tokenizer).score(test)
    reloaded = PeftModel.from_pretrained(again.model, str(tmp_path / "weights")).eval()
    scores = OptionScorer(reloaded, again.tokenizer).score(test)
    torch.testing.assert_close(torch.tensor(scores), torch.tensor(trained), rtol=0, atol=1e-5)
    assert not torch.allclose(torch.tensor(scores), torch.tensor(before), atol=1e-3)
    core = loaded.model.get_base_model()
    for name, value in core.state_dict().items():
        if "lora_" not in name:
            assert torch.equal(value, base[name.replace(".base_layer", "")])
    made = replay(tmp_path / "journal.bin", fresh(folder).model, base=loaded.sha256).model
    weights = {name: each for name, each in loaded.model.named_parameters() if each.requires_grad}
    assert weights
    assert all(torch.equal(each, weights[name]) for name, each in made.named_parameters() if name in weights)


def test_names_choose_what_is_trained(kit: Any) -> None:
    model = choose_parameters(kit.llama(), LOZO(include=("*.q_proj.weight", "*norm*")), 0)
    names = {name for name, each in model.named_parameters() if each.requires_grad}
    assert names
    assert all(name.endswith("q_proj.weight") or "norm" in name for name in names)
    with pytest.raises(InputError, match="include-matches-nothing"):
        choose_parameters(kit.llama(), LOZO(include=("*.w_proj.*",)), 0)
    with pytest.raises(ModelError, match="nothing-to-train"):
        choose_parameters(kit.llama().requires_grad_(False), LOZO(), 0)


@pytest.mark.parametrize("objective", ["accuracy", "f1", "language-model"])
def test_objectives_of_the_config_are_trained_on(folder: Path, kit: Any, tmp_path: Path, objective: Any) -> None:
    loaded = fresh(folder)
    spec = kit.run_spec(LOZO(objective=objective, lr=1e-2, eps=1e-1, queries=2), steps=3)
    outcome = train(
        spec,
        kit.RunFolder(tmp_path),
        loaded=loaded,
        scorer=OptionScorer(loaded.model, loaded.tokenizer),
        train_rows=rows(8),
        dev_rows=rows(4, seed=2),
        objective="options",
    )
    assert (outcome.steps, outcome.skipped) == (3, 0)
