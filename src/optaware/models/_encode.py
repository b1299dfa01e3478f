"""Text of a rendered example → token ids of its prompt and of each answer option."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optaware.errors import ProblemList
from optaware.records import RenderedExample

__all__ = ["EncodedExample", "encode"]


@dataclass(frozen=True)
class EncodedExample:
    """One example in token ids.

    `prompt_ids + option_ids[k]` are the tokens of `prompt + options[k]` (less what was cut from the prompt's left).

    Attributes:
        id: Id of the example.
        prompt_ids: Tokens that all options share; never empty.
        option_ids: Tokens of each option; at least two options, none of them empty.
        label: Index of the correct option.
    """

    id: str
    prompt_ids: tuple[int, ...]
    option_ids: tuple[tuple[int, ...], ...]
    label: int


def encode(rendered: Sequence[RenderedExample], tokenizer: Any, max_length: int) -> list[EncodedExample]:
    """Tokenise rendered examples so that an option's tokens are those that follow the prompt.

    Each `prompt + option` is tokenised as one text, as the model would meet it. The prompt's part is the longest token
    prefix that the prompt alone and all of these texts have in common. Where the tokenizer merges characters across
    the boundary (prompt "play", option "ing"), the prompt's last token thereby moves to the options' side, and the
    scores stay those of the whole text. BOS is present exactly when the tokenizer adds it.

    Prompts are cut from the left, BOS aside, so that the longest option still fits into `max_length` tokens.

    Args:
        rendered: The examples.
        tokenizer: A Hugging Face tokenizer.
        max_length: Most tokens of `prompt + option`.

    Raises:
        InputError: All faults of all rows together: empty prompt, fewer than two options, a label without an option,
            an option that adds no token, an option too long for `max_length`.
    """
    texts = [text for row in rendered for text in (row.prompt, *(row.prompt + option for option in row.options))]
    tokens = iter(_tokenise(texts, tokenizer))
    problems = ProblemList()
    rows = []
    for row in rendered:
        prompt = next(tokens)
        full = [next(tokens) for _ in row.options]
        if (encoded := _encode_row(row, prompt, full, tokenizer.bos_token_id, max_length, problems)) is not None:
            rows.append(encoded)
    problems.raise_if_any()
    return rows


def _tokenise(texts: list[str], tokenizer: Any) -> list[list[int]]:
    if not texts:
        return []
    # verbose=False: texts longer than the model are expected here, they are cut below.
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=True, return_attention_mask=False, verbose=False)[
        "input_ids"
    ]
    return ids


def _encode_row(
    row: RenderedExample,
    prompt: list[int],
    full: list[list[int]],
    bos: int | None,
    max_length: int,
    problems: ProblemList,
) -> EncodedExample | None:
    before = len(problems.problems)
    if len(row.options) < 2:
        problems.add(
            "too-few-options",
            f"{len(row.options)} answer options",
            "scoring compares at least two",
            "Give the task at least two options for this row.",
            row.id,
        )
    elif not 0 <= row.label < len(row.options):
        problems.add(
            "label-out-of-range",
            f"label {row.label}",
            f"there are {len(row.options)} options",
            "Give a label that indexes one of the options, counted from 0.",
            row.id,
        )
    shared = _common_prefix([prompt, *full])
    has_bos = shared > 0 and bos is not None and prompt[0] == bos
    if not row.prompt or shared == 0:
        problems.add(
            "empty-prompt",
            f"prompt {_short(row.prompt)}",
            "the first option token would have nothing to be predicted from",
            "Give the prompt at least one token that does not depend on the option.",
            row.id,
        )
        return None
    options = tuple(tuple(ids[shared:]) for ids in full)
    room = max_length - has_bos - 1
    for text, ids in zip(row.options, options, strict=True):
        if not ids:
            problems.add(
                "empty-option",
                f"option {_short(text)}",
                "it adds no token to the prompt, so it has no probability",
                "Give the option some text.",
                row.id,
            )
        elif len(ids) > room:
            problems.add(
                "option-too-long",
                f"option {_short(text)} of {len(ids)} tokens",
                f"with max_length {max_length}, {max(room, 0)} are left beside the prompt",
                "Raise max_length or shorten the option.",
                row.id,
            )
    if len(problems.problems) > before:
        return None
    keep = max_length - max(map(len, options))
    return EncodedExample(row.id, tuple(_cut_left(prompt[:shared], keep, has_bos)), options, row.label)


def _common_prefix(rows: list[list[int]]) -> int:
    """Number of leading tokens that all rows share."""
    first, last = min(rows), max(rows)
    for index, (a, b) in enumerate(zip(first, last, strict=False)):
        if a != b:
            return index
    return min(len(first), len(last))


def _cut_left(ids: list[int], keep: int, has_bos: bool) -> list[int]:
    if len(ids) <= keep:
        return ids
    return [*ids[:has_bos], *ids[len(ids) - keep + has_bos :]]


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
