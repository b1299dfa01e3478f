"""Where a generated text ends: end tokens and stop strings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError
from torch import nn

from optaware.models._introspect import unwrap

__all__ = ["end_tokens", "find_stop"]

_MARK = "optaware-mark"


def end_tokens(model: nn.Module, tokenizer: Any) -> frozenset[int]:
    """Tokens that end a reply: EOS of the generation config, the config and the tokenizer, and the chat's own.

    The chat's own is the special token that the chat template writes after an assistant's turn. Base checkpoints and
    conversions often leave it out of their EOS list.
    """
    core = unwrap(model)
    found: set[int] = set()
    for source in (getattr(core, "generation_config", None), core.config.get_text_config(), tokenizer):
        value = getattr(source, "eos_token_id", None)
        found.update(value if isinstance(value, list | tuple) else [] if value is None else [value])
    return frozenset(found | _turn_end(tokenizer))


def _turn_end(tokenizer: Any) -> set[int]:
    if not getattr(tokenizer, "chat_template", None):
        return set()
    turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARK}]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False)
    except (TemplateError, ValueError, TypeError):  # A template that refuses plain turns has no end to tell.
        return set()
    after = text.rpartition(_MARK)[2]
    ids = tokenizer(after, add_special_tokens=False)["input_ids"]
    return set(ids[:1]) & set(tokenizer.all_special_ids)


def find_stop(text: str, stop: Sequence[str]) -> int | None:
    """Where the earliest stop string begins in `text`; None when there is none."""
    places = [place for string in stop if (place := text.find(string)) >= 0]
    return min(places, default=None)
