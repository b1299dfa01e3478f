"""Which words differ between two texts, and how text from anywhere is shown without surprises."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from difflib import SequenceMatcher

__all__ = ["MOST_WORDS", "Segment", "differences", "visible"]

MOST_WORDS = 4000
"""Texts with more words than this on either side are shown without marks: comparing takes quadratic time."""

_TOKEN = re.compile(r"\s*(?:[^\W_]+(?:['’][^\W_]+)*|[^\w\s]|_)|\s+")
_HIDDEN = {"Cf", "Cc", "Cs", "Co", "Cn", "Zl", "Zp"}


@dataclass(frozen=True)
class Segment:
    """A run of text on one side.

    Attributes:
        text: The text, with what would be invisible made visible.
        changed: Whether the other side does not have it.
    """

    text: str
    changed: bool


def visible(text: str) -> str:
    """`text` with control, format and bidirectional characters written as `⟨U+202E⟩`, so that nothing hides in it.

    Line breaks and tabs stay; joiners between letters or signs (in emoji, in Indic and Persian words) stay as well.
    """
    shown = []
    for at, char in enumerate(text):
        joins = char in "\u200c\u200d" and 0 < at < len(text) - 1 and not text[at - 1].isspace()
        plain = char in "\n\t" or unicodedata.category(char) not in _HIDDEN
        shown.append(char if plain or joins else f"⟨U+{ord(char):04X}⟩")
    return "".join(shown)


def differences(original: str, rewritten: str) -> tuple[list[Segment], list[Segment]]:
    """Both texts in runs of words that the other text has too and words that it has not.

    White space counts as part of the word that follows it and is not compared. The texts of the segments, put together,
    are the (visible) texts.

    Args:
        original: The one text.
        rewritten: The other.

    Returns:
        Segments of the original (changed: gone) and of the rewrite (changed: new).
    """
    left, right = _TOKEN.findall(visible(original)), _TOKEN.findall(visible(rewritten))
    if max(len(left), len(right)) > MOST_WORDS:
        return [Segment("".join(left), False)], [Segment("".join(right), False)]
    matcher = SequenceMatcher(None, [token.strip() for token in left], [token.strip() for token in right], False)
    sides: tuple[list[Segment], list[Segment]] = ([], [])
    for kind, left_from, left_to, right_from, right_to in matcher.get_opcodes():
        changed = kind != "equal"
        for side, tokens in ((sides[0], left[left_from:left_to]), (sides[1], right[right_from:right_to])):
            if tokens:
                side.append(Segment("".join(tokens), changed))
    return sides
