from __future__ import annotations

import random
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from optaware.errors import InputError, ModelError
from optaware.models._ends import end_tokens
from optaware.models._generate import Generation, generate
from optaware.models._kept_prefixes import KeptPrefixes
from optaware.models._prefix import common_prefix, group_by_prefix
from optaware.models._shared_attention import RowCache

VOCABULARY = 96
END = 2
SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
SPECIAL = {"vocab_size": VOCABULARY, "bos_token_id": 1, "eos_token_id": END, "pad_token_id": None}


class LetterTokenizer:
    """Token i is the character with code 32 + i, so that texts are easy to read back."""

    eos_token_id = END
    chat_template = None

    def decode(self, tokens: Any, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
        assert skip_special_tokens
        assert not clean_up_tokenization_spaces
        return "".join(chr(32 + token) for token in tokens)


TOKENIZER = LetterTokenizer()


def build(kind: str = "llama", **changes: Any) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        if kind == "gpt2":
            return GPT2LMHeadModel(GPT2Config(n_positions=128, n_embd=32, n_layer=2, n_head=4, **SPECIAL)).eval()
        if kind == "mistral":
            config = MistralConfig(**SHAPE, **SPECIAL, num_key_value_heads=2, initializer_range=0.5, **changes)
            return MistralForCausalLM(config).eval()
        settings = {**SHAPE, **SPECIAL, "num_key_value_heads": 2, "initializer_range": 0.5, **changes}
        return LlamaForCausalLM(LlamaConfig(**settings)).eval()


@pytest.fixture(scope="module")
def model() -> Any:
    return build()


def prompts_with(prefix: int, suffixes: list[int], seed: int = 0) -> list[list[int]]:
    draw = random.Random(seed)
    head = [draw.randrange(3, VOCABULARY) for _ in range(prefix)]
    return [head + [draw.randrange(3, VOCABULARY) for _ in range(count)] for count in suffixes]


def alone(model: Any, prompt: list[int], new: int) -> list[int]:
    """The reference: transformers' own greedy loop, one prompt, no cache of ours."""
    out = model.generate(torch.tensor([prompt]), max_new_tokens=new, do_sample=False, pad_token_id=0, eos_token_id=END)
    tokens = out[0, len(prompt) :].tolist()
    return tokens[:-1] if tokens[-1] == END else tokens


SHARED = prompts_with(40, [3, 9, 1, 5, 5, 12, 2])
MIXED = [
    *prompts_with(40, [3, 9, 1, 5, 5, 12, 2] * 4, seed=1),
    *prompts_with(48, [4, 2, 7, 3] * 5, seed=2),
    *prompts_with(0, [6, 11]),
]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("batch_size", [1, 3, None])
def test_greedy_equals_generating_each_prompt_alone(attention: str, batch_size: int | None) -> None:
    model = build(attn_implementation=attention)
    made = generate(model, TOKENIZER, SHARED, max_new_tokens=12, batch_size=batch_size)
    assert [row.shared_prefix_tokens for row in made] == [40] * len(SHARED)
    for prompt, row in zip(SHARED, made, strict=True):
        assert list(row.token_ids) == alone(model, prompt, 12)
        assert row.prompt_tokens == len(prompt)
    assert model.config._attn_implementation == attention


def test_rows_end_at_different_steps(model: Any) -> None:
    """The fixture above must exercise rows that leave early, or compaction is not tested."""
    lengths = {len(alone(model, prompt, 40)) for prompt in MIXED}
    assert len(lengths) > 3


def test_groups_of_several_prefixes(model: Any) -> None:
    made = generate(model, TOKENIZER, MIXED, max_new_tokens=40, batch_size=9)
    assert {row.shared_prefix_tokens for row in made} == {40, 48, 0}
    for prompt, row in zip(MIXED, made, strict=True):
        expected = alone(model, prompt, 40)
        assert list(row.token_ids) == expected
        assert row.finish_reason == ("length" if len(expected) == 40 else "stop")
        assert row.completion_tokens == len(expected) + (row.finish_reason == "stop")


def test_the_prefix_is_computed_once_and_finished_rows_leave(model: Any) -> None:
    shapes = []
    handle = model.register_forward_pre_hook(
        lambda _m, _a, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    generate(model, TOKENIZER, SHARED, max_new_tokens=1)
    shapes.clear()
    made = generate(model, TOKENIZER, SHARED, max_new_tokens=30)
    handle.remove()
    assert shapes[:2] == [(1, 40), (7, 12)]
    assert sum(rows for rows, _ in shapes[2:]) == sum(row.completion_tokens - 1 for row in made)


def test_kept_prefixes_are_not_computed_again(model: Any) -> None:
    kept, widths = KeptPrefixes(), []
    generate(model, TOKENIZER, SHARED, max_new_tokens=1)
    handle = model.register_forward_pre_hook(
        lambda _m, _a, kwargs: widths.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    longer = [SHARED[0][:40] + tail for tail in ([*range(10, 50), 60], [*range(10, 50), 61, 62])]
    other = [[*SHARED[0][:35], 70, tail] for tail in (4, 5)]
    calls = (SHARED, SHARED, longer, other, [SHARED[1]], SHARED)
    for prompts in calls:
        widths.append("call")
        made = generate(model, TOKENIZER, prompts, max_new_tokens=8, kept=kept)
        assert [list(row.token_ids) for row in made] == [alone(model, prompt, 8) for prompt in prompts]
    handle.remove()
    firsts = [after for before, after in pairwise(widths) if before == "call"]
    # The prefix whole; nothing of it; what goes beyond it; its beginning; a prompt alone; nothing again.
    assert firsts == [(1, 40), (7, 12), (1, 40), (1, 1), (1, 9), (7, 12)]
    assert kept.tokens == 80, "the longer prefix holds the shorter one"
    assert model.config._attn_implementation != "optaware_shared_prefix"


def test_kept_prefixes_stay_within_their_bytes() -> None:
    def prefix(length: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        return [(torch.zeros(1, 1, length, 4), torch.zeros(1, 1, length, 4))]

    kept = KeptPrefixes(most_bytes=32 * 100)
    for start in (0, 1000, 2000):
        kept.keep(range(start, start + 40), prefix(40))
    assert kept.tokens == 80
    assert kept.find(range(40)) == (0, None), "the oldest goes first"
    kept.keep(range(3000, 3200), prefix(200))
    assert kept.tokens == 80, "one above the limit is not kept"
    assert kept.find(range(1000, 1040))[0] == 40
    kept.keep(range(4000, 4040), prefix(40))
    assert kept.find(range(1000, 1040))[0] == 40, "used last, so it stays"
    assert kept.find([*range(1000, 1031), 7]) == (0, None), "too short to be worth it"


def test_prefill_in_pieces_changes_nothing(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of 12 tokens and fewer, at most 24 positions a piece: the caches of several pieces are joined."""
    shapes = []
    monkeypatch.setattr("optaware.models._decode._PREFILL_CPU", 24)
    handle = model.register_forward_pre_hook(
        lambda _m, _a, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    made = generate(model, TOKENIZER, SHARED, max_new_tokens=12)
    handle.remove()
    assert shapes[:6] == [(1, 40), (2, 2), (2, 5), (2, 9), (1, 12), (7, 1)]
    for prompt, row in zip(SHARED, made, strict=True):
        assert list(row.token_ids) == alone(model, prompt, 12)


def test_logits_at_one_position_a_row(model: Any) -> None:
    shapes = []
    handle = model.lm_head.register_forward_hook(lambda _m, _i, output: shapes.append(output.shape[1]))
    generate(model, TOKENIZER, SHARED, max_new_tokens=3)
    handle.remove()
    assert set(shapes) == {1}


@pytest.mark.parametrize("kind", ["gpt2", "mistral"])
def test_other_families(kind: str) -> None:
    model = build(kind)
    for prompt, row in zip(SHARED, generate(model, TOKENIZER, SHARED, max_new_tokens=8), strict=True):
        assert list(row.token_ids) == alone(model, prompt, 8)


def test_texts_longer_than_a_sliding_window_do_not_share() -> None:
    model = build("mistral", sliding_window=45)
    made = generate(model, TOKENIZER, SHARED, max_new_tokens=8)
    assert {row.shared_prefix_tokens for row in made} == {0}
    for prompt, row in zip(SHARED, made, strict=True):
        assert list(row.token_ids) == alone(model, prompt, 8)


def test_a_model_that_attends_in_its_own_way_does_not_share(monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    for layer in model.model.layers:
        forward = layer.self_attn.forward
        monkeypatch.setattr(layer.self_attn, "forward", lambda *a, f=forward, **k: f(*a, softcap=30.0, **k))
    model.set_attn_implementation("eager")
    made = generate(model, TOKENIZER, SHARED, max_new_tokens=4)
    assert {row.shared_prefix_tokens for row in made} == {0}


def test_a_stop_string_cuts_the_text(model: Any) -> None:
    (whole,) = generate(model, TOKENIZER, SHARED[:1], max_new_tokens=20)
    assert len(whole.text) > 8
    stop = whole.text[4:7]
    (cut,) = generate(model, TOKENIZER, SHARED[:1], max_new_tokens=20, stop=("no such text", stop))
    assert cut.text == whole.text[: whole.text.index(stop)]
    assert cut.finish_reason == "stop"
    assert cut.completion_tokens == whole.text.index(stop) + 3


def test_one_limit_for_each_prompt(model: Any) -> None:
    limits = [1, 2, 3, 4, 5, 6, 7]
    made = generate(model, TOKENIZER, SHARED, max_new_tokens=limits)
    for prompt, row, limit in zip(SHARED, made, limits, strict=True):
        assert list(row.token_ids) == alone(model, prompt, limit)


def test_sampling_follows_each_rows_seed_and_nothing_else(model: Any) -> None:
    def draw(prompts: list[list[int]], seeds: list[int], **options: Any) -> list[tuple[int, ...]]:
        made = generate(model, TOKENIZER, prompts, max_new_tokens=10, temperature=1.3, seeds=seeds, **options)
        return [row.token_ids for row in made]

    before = torch.random.get_rng_state()
    seeds = list(range(7))
    together = draw(SHARED, seeds)
    assert torch.equal(before, torch.random.get_rng_state())
    assert together == draw(SHARED, seeds)
    assert together == draw(SHARED, seeds, batch_size=2)
    assert together[3:4] == draw(SHARED[3:4], seeds[3:4])
    assert together != draw(SHARED, seeds[::-1])
    assert len(set(draw([SHARED[0]] * 7, seeds))) > 1


def test_sampled_frequencies_are_the_softmax_of_the_logits(model: Any) -> None:
    prompt, temperature, draws = SHARED[0], 2.5, 3000
    made = generate(
        model,
        TOKENIZER,
        [prompt] * draws,
        max_new_tokens=1,
        temperature=temperature,
        seeds=range(draws),
        batch_size=600,
    )
    tokens = [row.token_ids[0] if row.token_ids else END for row in made]
    with torch.no_grad():
        expected = (model(torch.tensor([prompt])).logits[0, -1] / temperature).softmax(-1)
    found = torch.bincount(torch.tensor(tokens), minlength=VOCABULARY) / draws
    # Standard error of a frequency is at most 0.5 / sqrt(3000) = 0.009.
    assert (found - expected).abs().max() < 0.035
    assert found.max() < 0.9


def test_a_very_low_temperature_is_greedy(model: Any) -> None:
    greedy = generate(model, TOKENIZER, SHARED, max_new_tokens=6)
    cold = generate(model, TOKENIZER, SHARED, max_new_tokens=6, temperature=1e-4, seeds=range(7))
    assert [row.token_ids for row in cold] == [row.token_ids for row in greedy]


def test_on_done_tells_each_row_once_as_it_ends(model: Any) -> None:
    seen: list[tuple[int, Generation]] = []
    made = generate(model, TOKENIZER, MIXED, max_new_tokens=9, on_done=lambda *event: seen.append(event))
    assert sorted(index for index, _ in seen) == list(range(len(MIXED)))
    assert all(made[index] == row for index, row in seen)


def test_training_mode_is_left_as_it_was(model: Any) -> None:
    learner = build().train()
    learner.model.layers[0].eval()
    generate(learner, TOKENIZER, SHARED, max_new_tokens=2)
    assert learner.training
    assert not learner.model.layers[0].training


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("refuses", ["at once", "in the middle"])
@pytest.mark.parametrize("room", [1, 2])
def test_without_room_for_a_batch_its_rows_go_in_smaller_ones(
    model: Any, temperature: float, refuses: str, room: int
) -> None:
    prompts = prompts_with(7, [3, 5, 4, 6, 2])
    arguments: dict[str, Any] = {
        "max_new_tokens": [2, 6, 6, 6, 6],
        "temperature": temperature,
        "seeds": [4, 3, 2, 1, 0],
    }
    plain = generate(model, TOKENIZER, prompts, **arguments)
    calls, most, told = 0, [], []

    def refuse(_: Any, args: Any) -> None:
        nonlocal calls
        calls += 1
        rows = len(args[0])
        if rows > room and (refuses == "at once" or calls > 8):
            # What a card says when a library below PyTorch finds no memory.
            raise RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
        most.append(rows)

    hook = model.model.layers[-1].register_forward_pre_hook(refuse)
    try:
        short = generate(model, TOKENIZER, prompts, **arguments, on_done=lambda index, made: told.append(index))
    finally:
        hook.remove()
    assert short == plain
    assert sorted(told) == list(range(5))  # each once, though a row was begun again
    assert (max(most) > room) == (refuses == "in the middle")


def test_another_error_is_not_taken_for_want_of_memory(model: Any) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    hook = model.model.layers[-1].register_forward_pre_hook(fail)
    try:
        with pytest.raises(RuntimeError, match="illegal"):
            generate(model, TOKENIZER, prompts_with(7, [3, 5]), max_new_tokens=2)
    finally:
        hook.remove()


def test_the_attention_is_put_back_after_an_error(model: Any) -> None:
    def fail(*_: Any) -> None:
        raise KeyError("from on_done")

    with pytest.raises(KeyError):
        generate(model, TOKENIZER, SHARED, max_new_tokens=2, on_done=fail)
    assert model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_shares(dtype: torch.dtype) -> None:
    model = build().to(dtype)
    made = generate(model, TOKENIZER, SHARED, max_new_tokens=4)
    assert {row.shared_prefix_tokens for row in made} == {40}


def test_nothing_to_generate(model: Any) -> None:
    assert generate(model, TOKENIZER, [], max_new_tokens=4) == []


def test_all_faults_are_told_together(model: Any) -> None:
    with pytest.raises(InputError) as caught:
        generate(model, TOKENIZER, [[5], [], [7] * 2100], max_new_tokens=[4, 4], temperature=0.7, batch_size=0)
    assert [problem.code for problem in caught.value.problems] == [
        "count-mismatch",
        "seeds-missing",
        "not-positive",
        "empty-prompt",
    ]
    with pytest.raises(InputError, match="prompt-too-long"):
        generate(model, TOKENIZER, [[7] * 2045], max_new_tokens=4)
    with pytest.raises(InputError, match="count-mismatch"):
        generate(model, TOKENIZER, [[5]], max_new_tokens=4, temperature=1.0, seeds=[1, 2])
    with pytest.raises(InputError, match="temperature"):
        generate(model, TOKENIZER, [[5]], max_new_tokens=4, temperature=-1.0)


def test_a_recurrent_model_is_refused() -> None:
    model = MambaForCausalLM(MambaConfig(hidden_size=32, num_hidden_layers=1, state_size=4, vocab_size=VOCABULARY))
    with pytest.raises(ModelError, match="generation-unsupported"):
        generate(model, TOKENIZER, [[5]], max_new_tokens=1)


class _ChatTokenizer(LetterTokenizer):
    chat_template = "{{ messages }}"
    all_special_ids = (7, END)

    def apply_chat_template(self, messages: Any, tokenize: bool) -> str:
        return "".join(f"{turn['content']}|" for turn in messages)

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        return {"input_ids": [7 if char == "|" else ord(char) for char in text]}


def test_end_tokens_come_from_everywhere() -> None:
    model = SimpleNamespace(
        generation_config=SimpleNamespace(eos_token_id=[3, 4]),
        config=SimpleNamespace(get_text_config=lambda: SimpleNamespace(eos_token_id=5)),
    )
    assert end_tokens(model, TOKENIZER) == {2, 3, 4, 5}  # type: ignore[arg-type]
    assert end_tokens(model, _ChatTokenizer()) == {2, 3, 4, 5, 7}  # type: ignore[arg-type]


def test_the_cache_keeps_rows_in_place() -> None:
    cache = RowCache(6)
    keys = torch.arange(4 * 2 * 3 * 1.0).view(4, 2, 3, 1)
    cache.update(keys, -keys, 0)
    cache.keep(torch.tensor([1, 3]))
    step = torch.full((2, 2, 1, 1), 99.0)
    got_keys, got_values = cache.update(step, -step, 0)
    assert torch.equal(got_keys, torch.cat([keys[[1, 3]], step], 2))
    assert torch.equal(got_values, -got_keys)
    assert cache.get_seq_length() == 4


def test_groups_partition_and_share(model: nn.Module) -> None:
    groups = group_by_prefix(MIXED)
    assert sorted(index for group in groups for index in group.indices) == list(range(len(MIXED)))
    for group in groups:
        head = MIXED[group.indices[0]][: group.shared]
        assert all(MIXED[index][: group.shared] == head for index in group.indices)
        assert all(len(MIXED[index]) > group.shared for index in group.indices)


def test_a_header_common_to_two_templates_does_not_hide_their_own_prefixes() -> None:
    header = list(range(20))
    first = [header + [30] * 200 + [40 + i] for i in range(50)]
    second = [header + [31] * 150 + [40 + i] for i in range(50)]
    groups = {group.shared: group.indices for group in group_by_prefix([*first, *second])}
    assert groups == {220: tuple(range(50)), 170: tuple(range(50, 100))}


def test_small_gains_do_not_split_a_group() -> None:
    rows = [[*range(96), *[200 + i % 2] * 40, 300 + i] for i in range(12)]
    (group,) = group_by_prefix(rows)
    assert group.shared == 96
    many = [[*range(96), *[200 + i % 2] * 40, 300 + i] for i in range(120)]
    assert [group.shared for group in group_by_prefix(many)] == [136, 136]


def test_identical_prompts_leave_one_token_each() -> None:
    (group,) = group_by_prefix([[1, 2, 3]] * 4)
    assert group.shared == 2
    assert group_by_prefix([[1, 2, 3]])[0].shared == 0
    assert group_by_prefix([]) == []


def test_many_nested_prefixes_do_not_overflow_the_stack() -> None:
    rows = [[7] * (32 * length + 1) for length in range(900)]
    groups = group_by_prefix(rows)
    assert sorted(index for group in groups for index in group.indices) == list(range(900))


def test_common_prefix() -> None:
    assert [common_prefix([1, 2], other) for other in ([], [3], [1], [1, 2, 3])] == [0, 0, 1, 2]
