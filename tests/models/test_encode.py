from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from optaware.errors import InputError
from optaware.models._encode import EncodedExample, encode
from optaware.records import RenderedExample


def make_tokenizer(*, bos: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level BPE over ASCII whose only merges are `in`, `ing` and `aying`: they cross prompt boundaries."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {piece: index for index, piece in enumerate(["<s>", *alphabet, "in", "ing", "ay", "aying"])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[("i", "n"), ("in", "g"), ("a", "y"), ("ay", "ing")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    if bos:
        core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>")


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer()


def row(prompt: str, *options: str, label: int = 0, id: str = "t/train/0") -> RenderedExample:
    return RenderedExample(id=id, prompt=prompt, options=options, label=label)


def test_clean_boundary_splits_after_the_prompt(tokenizer: PreTrainedTokenizerFast) -> None:
    example = row("Is it?", " Yes", " No", label=1)
    assert encode([example], tokenizer, 64) == [
        EncodedExample(
            "t/train/0",
            tuple(tokenizer("Is it?").input_ids),
            (tuple(tokenizer(" Yes").input_ids), tuple(tokenizer(" No").input_ids)),
            1,
        )
    ]


def test_merge_across_the_boundary_moves_the_token_to_the_options(tokenizer: PreTrainedTokenizerFast) -> None:
    (encoded,) = encode([row("play", "ing", "ed")], tokenizer, 64)
    assert tokenizer.convert_ids_to_tokens(encoded.prompt_ids) == ["p", "l"]
    assert [tokenizer.convert_ids_to_tokens(ids) for ids in encoded.option_ids] == [["aying"], ["ay", "e", "d"]]


@given(
    prompt=st.text("ayingpl ", min_size=1, max_size=12).map(lambda text: "x" + text),
    options=st.lists(st.text("ayingpl ", min_size=1, max_size=8), min_size=2, max_size=4),
    bos=st.booleans(),
)
def test_prompt_and_option_tokens_are_those_of_the_whole_text(prompt: str, options: list[str], bos: bool) -> None:
    tokenizer = make_tokenizer(bos=bos)
    (encoded,) = encode([row(prompt, *options)], tokenizer, 64)
    for option, ids in zip(options, encoded.option_ids, strict=True):
        assert list(encoded.prompt_ids + ids) == tokenizer(prompt + option).input_ids
    assert (encoded.prompt_ids[0] == 0) == bos


def test_prompts_are_cut_from_the_left(tokenizer: PreTrainedTokenizerFast) -> None:
    (encoded,) = encode([row("abcdefgh", " Yes", " No")], tokenizer, 8)
    assert tokenizer.decode(encoded.prompt_ids) == "efgh"
    assert len(encoded.prompt_ids) + max(map(len, encoded.option_ids)) == 8


def test_cut_prompts_keep_bos() -> None:
    tokenizer = make_tokenizer(bos=True)
    (encoded,) = encode([row("abcdefgh", " Yes", " No")], tokenizer, 8)
    assert encoded.prompt_ids[0] == tokenizer.bos_token_id
    assert tokenizer.decode(encoded.prompt_ids[1:]) == "fgh"
    assert encode([row("abc", " Yes", " No")], tokenizer, 8)[0].prompt_ids == tuple(tokenizer("abc").input_ids)


def test_the_tightest_room_leaves_one_prompt_token() -> None:
    for bos in (False, True):
        tokenizer = make_tokenizer(bos=bos)
        (encoded,) = encode([row("abc", " Yes", " No")], tokenizer, 5 + bos)
        assert tokenizer.decode(encoded.prompt_ids[bos:]) == "c"
        with pytest.raises(InputError, match="option-too-long"):
            encode([row("abc", " Yes", " No")], tokenizer, 4 + bos)


def test_all_faults_of_all_rows_are_reported_together(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [
        row("good", " Yes", " No", id="t/train/0"),
        row("", " Yes", " No", id="t/train/1"),
        row("one", " Yes", id="t/train/2"),
        row("nothing", " Yes", "", id="t/train/3"),
        row("label", " Yes", " No", label=2, id="t/train/4"),
        row("long", " Yes", " " + "z" * 40, id="t/train/5"),
    ]
    with pytest.raises(InputError) as caught:
        encode(rows, tokenizer, 32)
    assert [(problem.code, problem.where) for problem in caught.value.problems] == [
        ("empty-prompt", "t/train/1"),
        ("too-few-options", "t/train/2"),
        ("empty-option", "t/train/3"),
        ("label-out-of-range", "t/train/4"),
        ("option-too-long", "t/train/5"),
    ]


def test_a_prompt_that_merges_away_entirely_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(InputError, match="empty-prompt"):
        encode([row("i", "ng", "t")], tokenizer, 32)


def test_no_rows(tokenizer: PreTrainedTokenizerFast) -> None:
    assert encode([], tokenizer, 32) == []
