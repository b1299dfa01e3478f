"""What the leakage scorers see of a span."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from optaware.data._words import content_words, words

__all__ = ["bag", "pair_features"]

PAIR_FEATURES = ("shared words", "shared words by option", "shared pairs", "shared letter runs", "option length")


def bag(text: str) -> frozenset[str]:
    """Words and pairs of neighbouring words, each once."""
    run = words(text)
    return frozenset(run) | {f"{a} {b}" for a, b in pairwise(run)}


def pair_features(span: str, options: Sequence[str]) -> NDArray[np.float64]:
    """How each option of a row resembles the span: (options, features), less the mean over the row's options.

    Shared content words over all of both, and over the option's; shared pairs of words; shared runs of four letters;
    and the option's length, which says nothing of the span but must not pass for something that does.
    """
    run, content, letters = words(span), content_words(span), _runs(span)
    pairs = set(pairwise(run))
    rows = []
    for option in options:
        own, own_run, own_letters = content_words(option), words(option), _runs(option)
        own_pairs = set(pairwise(own_run))
        rows.append(
            [
                _share(len(content & own), len(content | own)),
                _share(len(content & own), len(own)),
                _share(len(pairs & own_pairs), len(own_pairs)),
                _share(len(letters & own_letters), len(letters | own_letters)),
                len(own_run) / 10.0,
            ]
        )
    found = np.array(rows, dtype=np.float64)
    return np.asarray(found - found.mean(axis=0))


def _runs(text: str) -> set[str]:
    plain = " ".join(words(text))
    return {plain[at : at + 4] for at in range(len(plain) - 3)}


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
