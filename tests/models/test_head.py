"""A head that is not trained is multiplied once for a batch, not copied for each of its rows."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from torch.utils._python_dispatch import TorchDispatchMode

from optaware.models import EncodedExample, LoadedModel, OptionScorer, generate, load_model
from optaware.records import ModelRef

ROWS = [
    EncodedExample("a", (5, 6, 7, 8), ((9,), (10,)), 0),
    EncodedExample("b", (5, 7, 7), ((9,), (11,)), 1),
    EncodedExample("c", (6, 7, 7, 4, 3), ((9,), (11,)), 1),
]
LONGER = [EncodedExample(each.id, each.prompt_ids, ((9, 10), (11, 12, 13)), each.label) for each in ROWS]


class Batches(TorchDispatchMode):
    """Products of batches of matrices over the vocabulary."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.vocabulary, self.found = vocabulary, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "bmm" in str(function) and args[1].shape[-1] == self.vocabulary:
            self.found += 1
        return function(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def loaded(tiny_model_dir: Any) -> LoadedModel:
    return load_model(ModelRef(name=str(tiny_model_dir), dtype="fp32"))


def frozen(model: Any) -> Any:
    model = copy.deepcopy(model)
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


@pytest.mark.parametrize("rows", [ROWS, LONGER], ids=["one token", "trees"])
def test_scores_of_a_frozen_model_take_one_product(rows: Any, loaded: LoadedModel) -> None:
    scorer = OptionScorer(frozen(loaded.model), loaded.tokenizer)
    with Batches(loaded.model.config.vocab_size) as seen:
        scores = scorer.score(rows)
    assert seen.found == 0
    assert scores == OptionScorer(loaded.model, loaded.tokenizer).score(rows)


def test_generation_of_a_frozen_model_does_too(loaded: LoadedModel) -> None:
    prompts = [each.prompt_ids for each in ROWS]
    with Batches(loaded.model.config.vocab_size) as seen:
        made = generate(frozen(loaded.model), loaded.tokenizer, prompts, max_new_tokens=3)
    assert seen.found == 0
    assert made == generate(loaded.model, loaded.tokenizer, prompts, max_new_tokens=3)


def test_the_head_is_prepared_once(loaded: LoadedModel) -> None:
    model = frozen(loaded.model)
    for _ in range(3):
        OptionScorer(model, loaded.tokenizer)
    assert len(model.get_output_embeddings()._forward_pre_hooks) == 1
