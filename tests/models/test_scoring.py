from __future__ import annotations

import copy
import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from optaware.errors import InputError
from optaware.models._encode import EncodedExample
from optaware.models._scoring import OptionScorer

VOCABULARY = 61
TOKENIZER = SimpleNamespace(pad_token_id=None, eos_token_id=2)
SPECIAL = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": 2}
BATCHINGS = ("tree", "rows", "single")


def llama(**changes: Any) -> nn.Module:
    settings = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "initializer_range": 0.4,
    }
    return build(lambda: LlamaForCausalLM(LlamaConfig(**{**settings, **changes})))


def build(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().eval()


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return llama()


def example(seed: int, prompt: int, options: tuple[int, ...], label: int = 0) -> EncodedExample:
    draw = torch.Generator().manual_seed(seed)
    ids = lambda count: tuple(torch.randint(3, VOCABULARY, (count,), generator=draw).tolist())  # noqa: E731
    return EncodedExample(f"t/train/{seed}", ids(prompt), tuple(map(ids, options)), label)


MIXED = [example(0, 9, (3, 5), 1), example(1, 4, (1, 2, 6), 2), example(2, 13, (4, 1), 0), example(3, 1, (2, 2), 1)]
SINGLE_TOKEN = [example(10, 7, (1, 1), 1), example(11, 3, (1, 1, 1), 2), example(12, 12, (1, 1), 0)]


def naive(model: nn.Module, row: EncodedExample) -> list[float]:
    """Each option on its own, log-softmax over all positions: the definition, without any layout."""
    scores = []
    for option in row.option_ids:
        ids = torch.tensor([row.prompt_ids + option])
        with torch.no_grad():
            logprobs = model(input_ids=ids).logits.float().log_softmax(-1)[0]
        start = len(row.prompt_ids)
        scores.append(sum(logprobs[start + t - 1, token].item() for t, token in enumerate(option)) / len(option))
    return scores


def forced(model: nn.Module, batching: Any) -> OptionScorer:
    scorer = OptionScorer(model, TOKENIZER)
    scorer.batching = batching
    return scorer


@pytest.mark.parametrize("batching", BATCHINGS)
@pytest.mark.parametrize("rows", [MIXED, SINGLE_TOKEN, MIXED + SINGLE_TOKEN], ids=["many", "one", "both"])
def test_scores_are_those_of_every_option_alone(model: nn.Module, batching: str, rows: list[EncodedExample]) -> None:
    scores = forced(model, batching).option_logprobs(rows)
    assert scores.dtype == torch.float32
    for row, got in zip(rows, scores.tolist(), strict=True):
        count = len(row.option_ids)
        assert got[:count] == pytest.approx(naive(model, row), abs=2e-5)
        assert got[count:] == [-math.inf] * (scores.shape[1] - count)


@pytest.mark.parametrize("batching", BATCHINGS)
def test_scores_do_not_depend_on_the_rest_of_the_batch(model: nn.Module, batching: str) -> None:
    scorer = forced(model, batching)
    together = scorer.option_logprobs(MIXED + SINGLE_TOKEN)
    for index, row in enumerate(MIXED + SINGLE_TOKEN):
        alone = scorer.option_logprobs([row])[0]
        torch.testing.assert_close(together[index, : len(alone)], alone, atol=2e-5, rtol=0)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_causal_transformer_is_batched_as_trees(attention: str) -> None:
    model = llama(attn_implementation=attention)
    scorer = OptionScorer(model, TOKENIZER)
    assert scorer.batching == "tree"
    assert scorer.option_logprobs(MIXED)[0].tolist()[:2] == pytest.approx(naive(model, MIXED[0]), abs=2e-5)


class _IgnoresMask(nn.Module):
    """A model that a 4D mask does not reach: options further right see those further left."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.inner = model
        self.config = model.config

    def forward(self, input_ids: Any, attention_mask: Any, position_ids: Any, logits_to_keep: int = 0) -> Any:
        if attention_mask.ndim == 4:
            attention_mask = attention_mask[:, 0, -1].new_tensor((position_ids >= 0).tolist())
        return self.inner(input_ids, attention_mask, position_ids, logits_to_keep=logits_to_keep, use_cache=False)


class _RefusesMask(_IgnoresMask):
    def forward(self, input_ids: Any, attention_mask: Any, position_ids: Any, logits_to_keep: int = 0) -> Any:
        if attention_mask.ndim == 4:
            raise ValueError("expected a 2D mask")
        return super().forward(input_ids, attention_mask, position_ids, logits_to_keep)


@pytest.mark.parametrize("wrapper", [_IgnoresMask, _RefusesMask])
def test_a_model_that_mishandles_trees_gets_rows(model: nn.Module, wrapper: type[_IgnoresMask]) -> None:
    scorer = OptionScorer(wrapper(model), TOKENIZER)
    assert scorer.batching == "rows"
    for row, got in zip(MIXED, scorer.option_logprobs(MIXED).tolist(), strict=True):
        assert got[: len(row.option_ids)] == pytest.approx(naive(model, row), abs=2e-5)


class _FeelsPadding(_IgnoresMask):
    def forward(self, input_ids: Any, attention_mask: Any, position_ids: Any, logits_to_keep: int = 0) -> Any:
        positions = torch.arange(input_ids.shape[1])[None] + 0 * position_ids
        return self.inner(input_ids, None, positions, logits_to_keep=logits_to_keep, use_cache=False)


def test_a_model_that_feels_padding_gets_one_row_at_a_time(model: nn.Module) -> None:
    scorer = OptionScorer(_FeelsPadding(model), TOKENIZER)
    assert scorer.batching == "single"
    for row, got in zip(MIXED, scorer.option_logprobs(MIXED).tolist(), strict=True):
        assert got[: len(row.option_ids)] == pytest.approx(naive(model, row), abs=2e-5)


@pytest.mark.parametrize(
    ("make", "batching"),
    [
        (lambda: GPT2LMHeadModel(GPT2Config(n_positions=64, n_embd=32, n_layer=2, n_head=2, **SPECIAL)), "tree"),
        (lambda: BloomForCausalLM(BloomConfig(hidden_size=32, n_layer=2, n_head=4, **SPECIAL)), None),
        (lambda: MambaForCausalLM(MambaConfig(hidden_size=32, num_hidden_layers=2, state_size=4, **SPECIAL)), None),
    ],
    ids=["gpt2", "bloom", "mamba"],
)
def test_other_families_score_right_whatever_batching_they_get(make: Any, batching: str | None) -> None:
    """Absolute positions, ALiBi and a recurrent model: the probe must choose what is right for each."""
    model = build(make)
    scorer = OptionScorer(model, TOKENIZER)
    assert batching is None or scorer.batching == batching
    for row, got in zip(MIXED, scorer.option_logprobs(MIXED).tolist(), strict=True):
        assert got[: len(row.option_ids)] == pytest.approx(naive(model, row), abs=1e-4)


def test_rows_wider_than_a_sliding_window_are_not_trees() -> None:
    settings = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = MistralConfig(
        vocab_size=VOCABULARY, num_key_value_heads=2, sliding_window=12, initializer_range=0.4, **settings
    )
    model = build(lambda: MistralForCausalLM(config))
    scorer = OptionScorer(model, TOKENIZER)
    long = [example(20, 16, (3, 4)), example(21, 10, (2, 6))]
    one_token = [example(22, 16, (1, 1)), example(23, 10, (1, 1))]
    for rows in (long, one_token):
        for row, got in zip(rows, scorer.option_logprobs(rows).tolist(), strict=True):
            assert got == pytest.approx(naive(model, row), abs=2e-5)


def test_padding_sees_itself_where_the_model_takes_trees(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of attention that sees nothing gave gradients that are no numbers on a GPU."""
    scorer = OptionScorer(model, TOKENIZER)
    seen: list[torch.Tensor] = []
    forward = model.forward
    monkeypatch.setattr(model, "forward", lambda **kwargs: seen.append(kwargs["attention_mask"]) or forward(**kwargs))
    scorer.option_logprobs(SINGLE_TOKEN)
    scorer.option_logprobs([example(30, 7, (1, 1)), example(31, 7, (1, 1))])
    scorer.batching = "rows"
    scorer.option_logprobs(SINGLE_TOKEN)
    assert [each.ndim for each in seen] == [4, 2, 2]
    assert seen[0].any(-1).all()


@pytest.mark.parametrize("batching", BATCHINGS)
@pytest.mark.parametrize("objective", ["options", "language-model"])
def test_loss_is_its_definition_and_its_gradient_that_of_the_reference(
    model: nn.Module, batching: str, objective: Any
) -> None:
    scores = [torch.tensor(naive(model, row)) for row in MIXED]
    if objective == "options":
        expected = sum(-row.log_softmax(-1)[e.label] for row, e in zip(scores, MIXED, strict=True)) / len(MIXED)
    else:
        expected = sum(-row[e.label] for row, e in zip(scores, MIXED, strict=True)) / len(MIXED)
    learner = copy.deepcopy(model)
    loss = forced(learner, batching).loss(MIXED, objective)
    assert loss.dtype == torch.float32
    assert loss.ndim == 0
    assert loss.item() == pytest.approx(float(expected), abs=2e-5)
    loss.backward()
    gradient = learner.get_parameter("model.layers.0.mlp.up_proj.weight").grad
    reference = copy.deepcopy(model)
    forced(reference, "single").loss(MIXED, objective).backward()
    assert gradient is not None
    assert gradient.abs().max() > 1e-4
    torch.testing.assert_close(
        gradient, reference.get_parameter("model.layers.0.mlp.up_proj.weight").grad, atol=1e-5, rtol=1e-3
    )


def test_a_batch_equals_the_mean_of_its_parts(model: nn.Module) -> None:
    scorer = OptionScorer(model, TOKENIZER)
    for objective in ("options", "language-model"):
        whole = scorer.loss(MIXED, objective)
        parts = (scorer.loss(MIXED[:2], objective) + scorer.loss(MIXED[2:], objective)) / 2
        torch.testing.assert_close(whole, parts, atol=1e-5, rtol=0)


def test_no_logits_beyond_the_option_positions(model: nn.Module) -> None:
    shapes = []
    handle = model.lm_head.register_forward_hook(lambda _m, _i, output: shapes.append(tuple(output.shape)))
    scorer = OptionScorer(model, TOKENIZER)
    shapes.clear()
    scorer.option_logprobs(SINGLE_TOKEN)
    scorer.option_logprobs(MIXED)
    scorer.loss(MIXED, "language-model")
    handle.remove()
    assert shapes == [(3, 1, VOCABULARY), (4, 7, VOCABULARY), (4, 6, VOCABULARY)]


@pytest.mark.parametrize("batching", BATCHINGS)
def test_score_keeps_the_order_whatever_the_budget(model: nn.Module, batching: str) -> None:
    scorer = forced(model, batching)
    rows = MIXED + SINGLE_TOKEN + [example(30 + i, 2 + i % 5, (1 + i % 3, 2)) for i in range(9)]
    wide = scorer.score(rows)
    narrow = scorer.score(rows, tokens_per_batch=1)
    for row, a, b in zip(rows, wide, narrow, strict=True):
        assert len(a) == len(row.option_ids)
        assert a == pytest.approx(b, abs=2e-5)
        assert a == pytest.approx(naive(model, row), abs=2e-5)


def test_batches_stay_within_the_budget(model: nn.Module) -> None:
    positions = []
    handle = model.register_forward_pre_hook(
        lambda _m, _a, kwargs: positions.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    scorer = OptionScorer(model, TOKENIZER)
    positions.clear()
    scorer.score([example(40 + i, 3 + i, (2, 3)) for i in range(12)], tokens_per_batch=40)
    handle.remove()
    assert max(positions) <= 40
    assert len(positions) < 12


def test_score_leaves_modes_and_gradients_alone(model: nn.Module) -> None:
    learner = copy.deepcopy(model).train()
    learner.model.layers[0].eval()
    scorer = OptionScorer(learner, TOKENIZER)
    scorer.score(MIXED)
    assert learner.training
    assert not learner.model.layers[0].training
    assert all(parameter.grad is None for parameter in learner.parameters())
    assert scorer.option_logprobs(MIXED).requires_grad


def test_the_same_call_gives_the_same_bits(model: nn.Module) -> None:
    scorer = OptionScorer(model, TOKENIZER)
    assert torch.equal(scorer.option_logprobs(MIXED), scorer.option_logprobs(MIXED))


def test_predictions_and_their_score(model: nn.Module) -> None:
    scorer = OptionScorer(model, TOKENIZER)
    for objective in ("options", "language-model"):
        predictions, score = scorer.predict(MIXED, objective)
        assert [p.example_id for p in predictions] == [row.id for row in MIXED]
        assert [p.predicted for p in predictions] == [
            max(range(len(p.scores)), key=p.scores.__getitem__) for p in predictions
        ]
        assert score.n == len(MIXED)
        assert score.accuracy == sum(p.predicted == row.label for p, row in zip(predictions, MIXED, strict=True)) / 4
        assert score.loss == pytest.approx(scorer.loss(MIXED, objective).item(), abs=1e-5)


def test_predictions_of_a_broken_model_have_no_loss(model: nn.Module) -> None:
    broken = copy.deepcopy(model)
    scorer = OptionScorer(broken, TOKENIZER)
    with torch.no_grad():
        broken.lm_head.weight.fill_(math.nan)
    predictions, score = scorer.predict(SINGLE_TOKEN, "options")
    assert score.loss is None
    assert [p.predicted for p in predictions] == [0, 0, 0]


def test_nothing_to_score(model: nn.Module) -> None:
    scorer = OptionScorer(model, TOKENIZER)
    assert scorer.score([]) == []
    assert scorer.predict([], "options")[1].n == 0
    with pytest.raises(InputError, match="empty-batch"):
        scorer.option_logprobs([])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_trees_and_fp32_scores(dtype: torch.dtype) -> None:
    model = llama().to(dtype)
    scorer = OptionScorer(model, TOKENIZER)
    scores = scorer.option_logprobs(MIXED)
    assert scorer.batching == "tree"
    assert scores.dtype == torch.float32
    assert torch.isfinite(scores[:, :2]).all()


def test_autocast_scores_like_the_plain_rows_of_autocast(model: nn.Module) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        tree = forced(model, "tree").option_logprobs(MIXED)
        single = forced(model, "single").option_logprobs(MIXED)
    assert torch.allclose(tree[:, :2], single[:, :2], atol=0.2)
