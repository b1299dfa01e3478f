"""Text of papers and plans between the marks of a prompt, which it cannot close."""

from __future__ import annotations

import re

__all__ = ["fenced", "fenced_line"]

_MARKS = re.compile(r"<(?=\s*/?\s*(?:paper|ablation-\d|discussion|predictions)\b)", re.IGNORECASE)


def fenced(text: str) -> str:
    """`text` with a space behind the bracket of every mark that the prompts of this package use."""
    return _MARKS.sub("< ", text)


def fenced_line(text: str) -> str:
    """The same on one line, so that it cannot add a line to a list of `name: value`."""
    return fenced(" ".join(text.split()))
