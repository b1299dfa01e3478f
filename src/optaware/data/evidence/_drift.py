"""What rewriting did to the texts: lengths, readability, words, names, numbers, negations."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from optaware.data._words import bare_words, content_words, count_words, names, negated, numbers, words
from optaware.records import Drift, Interval, WordShift
from optaware.stats import crossed_bootstrap, wilson

__all__ = ["drift_of", "kept_shares", "reading_ease", "shifted_words"]

_VOWELS = re.compile(r"[aeiouyàâäáãåèéêëìíîïòóôöõùúûüÿæœ]+")
_SENTENCE = re.compile(r"[.!?]+(?=\s|$|[\"'”’)\]])")


def _syllables(word: str) -> int:
    found = len(_VOWELS.findall(word))
    # A final e is silent in English, but not after a consonant and l.
    if found > 1 and word.endswith("e") and not re.search(r"[^aeiouy]le$", word):
        found -= 1
    return max(1, found)


def reading_ease(text: str) -> float:
    """Flesch's reading ease of an English text: `206.835 − 1.015·words/sentences − 84.6·syllables/words`.

    Higher is easier: about 90 for simple talk, 30 for academic prose. Syllables are counted by rules.

    Source: Flesch, Journal of Applied Psychology 32 (1948).
    """
    run = words(text)
    if not run:
        return 0.0
    sentences = max(1, len(_SENTENCE.findall(text)))
    return 206.835 - 1.015 * len(run) / sentences - 84.6 * sum(map(_syllables, run)) / len(run)


_PROPERTIES: Mapping[str, Callable[[str], float]] = {
    "words": lambda text: float(count_words(text)),
    "letters per word": lambda text: sum(map(len, words(text))) / max(1, len(words(text))),
    "reading ease (Flesch)": reading_ease,
    "share of different words": lambda text: len(set(words(text))) / max(1, len(words(text))),
    "rows with a negation": lambda text: float(negated(text)),
}


def drift_of(before: Sequence[str], after: Sequence[str], *, rng: np.random.Generator) -> tuple[Drift, ...]:
    """Properties of spans, with intervals of their mean difference over rows.

    Args:
        before: Original spans.
        after: The same rows' spans in the corpus.
        rng: Draws the bootstrap.
    """
    found = []
    for name, measure in _PROPERTIES.items():
        old, new = np.array([measure(text) for text in before]), np.array([measure(text) for text in after])
        found.append(
            Drift(
                name=name,
                before=float(old.mean()),
                after=float(new.mean()),
                difference=crossed_bootstrap(new - old, rng=rng),
            )
        )
    overlap = np.array([_overlap(a, b) for a, b in zip(before, after, strict=True)])
    found.append(
        Drift(
            name="share of content words in common",
            before=1.0,
            after=float(overlap.mean()),
            difference=crossed_bootstrap(overlap - 1.0, rng=rng),
        )
    )
    return tuple(found)


def _overlap(before: str, after: str) -> float:
    old, new = content_words(before), content_words(after)
    return len(old & new) / len(old | new) if old | new else 1.0


def kept_shares(before: Sequence[str], after: Sequence[str]) -> dict[str, Interval]:
    """Shares of rows that keep all names, all numbers, and whether they negate; with Wilson's intervals."""
    pairs = list(zip(before, after, strict=True))
    kept = {
        "names": sum(not ((names(a) or set()) - bare_words(b)) for a, b in pairs),
        "numbers": sum(set.union(*numbers(a)) == set.union(*numbers(b)) for a, b in pairs),
        "negation": sum(negated(a) == negated(b) for a, b in pairs),
    }
    return {name: wilson(count, len(pairs)) for name, count in kept.items()}


def shifted_words(
    before: Sequence[str], after: Sequence[str], most: int = 10
) -> tuple[tuple[WordShift, ...], tuple[WordShift, ...]]:
    """Words that stand in more rows than before, and in fewer: what the rewriter likes to say.

    Ranked by `(a − b) / √(a + b)` with a and b the numbers of rows; what comes and goes by chance stays below 2.
    """
    old = Counter(word for text in before for word in set(words(text)))
    new = Counter(word for text in after for word in set(words(text)))

    def score(word: str) -> float:
        return float((new[word] - old[word]) / np.sqrt(new[word] + old[word]))

    ranked = sorted(old.keys() | new.keys(), key=lambda word: (-score(word), word))
    gained = [word for word in ranked[:most] if score(word) >= 2.0]
    lost = [word for word in ranked[::-1][:most] if score(word) <= -2.0]

    def shifts(found: Sequence[str]) -> tuple[WordShift, ...]:
        return tuple(WordShift(word=word, rows_before=old[word], rows_after=new[word]) for word in found)

    return shifts(gained), shifts(lost)
