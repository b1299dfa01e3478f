from __future__ import annotations

import re
import unicodedata

__all__ = ["bracketed", "content_words", "normal_text", "number_words"]

_WORD = re.compile(r"[^\W_]+")
_BRACKETED = re.compile(r"[(\[]([^()\[\]]{1,40})[)\]]")
_SYMBOLS = {
    "ε": "epsilon",
    "ϵ": "epsilon",
    "δ": "delta",
    "η": "eta",
    "ν": "nu",
    "β": "beta",
    "λ": "lambda",
    "α": "alpha",
}
# Words that say how a thing is spoken of, not which thing it is.
_EMPTY = frozenset(
    _WORD.findall(
        """a an the of in on for to with by and or from into as at is are be its their this that these our we each per
        via between during under over within across through when where which using use used uses based method methods
        mechanism mechanisms strategy strategies approach approaches technique techniques component components module
        modules scheme schemes procedure process choice choices setting settings value values number amount different
        various proposed ablation ablations study effect effects impact role replacing replace removing remove"""
    )
)


def normal_text(text: str) -> str:
    """Text for comparing: NFKC, lower case, Greek letters by name, single spaces."""
    lowered = unicodedata.normalize("NFKC", text).lower()
    return " ".join("".join(f" {_SYMBOLS[char]} " if char in _SYMBOLS else char for char in lowered).split())


def _stem(word: str) -> str:
    if not word.isascii() or word.isdigit():
        return word
    if len(word) > 4 and word.endswith("ies"):
        word = word[:-3] + "y"
    elif len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        if len(word) >= 6 and word.endswith(ending):
            word = word[: -len(ending)]
            break
    return word[:-1] if len(word) > 3 and word.endswith("e") else word


def content_words(text: str) -> frozenset[str]:
    """Stems of the words that say which thing is meant; all words when none of them does."""
    words = _WORD.findall(normal_text(text))
    telling = [word for word in words if word not in _EMPTY and not (len(word) == 1 and word.isalpha())]
    return frozenset(map(_stem, telling or words))


def number_words(words: frozenset[str]) -> frozenset[str]:
    """Those of the words that hold a digit: `2` of `GPT-2`, `7b`."""
    return frozenset(word for word in words if any(char.isdigit() for char in word))


def bracketed(text: str) -> frozenset[str]:
    """What stands in brackets, as papers give symbols and short names: `n` of `samples (n)`."""
    return frozenset(normal_text(inner) for inner in _BRACKETED.findall(text))
