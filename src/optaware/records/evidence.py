"""What can be said of a rewritten corpus before anybody trains on it."""

from __future__ import annotations

from optaware.records._base import Record
from optaware.records.result import Interval

__all__ = ["CorpusEvidence", "Drift", "GateByLabel", "HeldOutCount", "Leakage", "RowProbes", "WordShift"]


class Leakage(Record):
    """How well a scorer that sees the span alone (and the row's options) finds the label, cross-fitted.

    `difference` is accuracy on rewritten spans less accuracy on the original ones, of the same rows and folds.
    """

    scorer: str
    """What the scorer is made of, in words."""
    rows: int
    """Rows whose span was changed; the others say nothing."""
    chance: float
    """Accuracy of always answering the most frequent label."""
    before: float
    after: float
    difference: Interval

    @property
    def leaks(self) -> bool:
        """Whether the label is found more often from the rewritten spans, beyond chance of the rows."""
        return self.difference.low > 0


class Drift(Record):
    """One property of the spans, before and after, with the interval of its mean difference over rows."""

    name: str
    before: float
    after: float
    difference: Interval


class WordShift(Record):
    """A word that stands in many more (or fewer) of the rewritten rows."""

    word: str
    rows_before: int
    rows_after: int


class GateByLabel(Record):
    """How many rewrites the gate let through, by the row's label: a gate that prefers one label tilts the corpus."""

    label: str
    rows: int
    rewritten: int
    share: Interval


class HeldOutCount(Record):
    """Training rows near a dev or test row, before and after rewriting."""

    texts: int
    """Held-out texts compared with; 0: none were at hand."""
    near_before: int
    near_after: int
    refused: int
    """Rewrites that the gate refused for it."""


class RowProbes(Record):
    """Per-row statistics of zeroth-order estimates under the model to be trained, before and after.

    `figures`: mean loss, |g|, variance of g over directions, curvature and |curvature| along them, perplexity.
    `signal_to_noise`: along a direction, the squared mean of g over rows, over the variance of g between rows divided
    by the batch size; averaged over directions. It says how far a batch's estimate agrees with that of all rows.
    """

    model: str
    dtype: str
    directions: int
    eps: float
    batch_size: int
    rows: int
    figures: tuple[Drift, ...]
    signal_to_noise: Drift
    """The difference is that of the natural logarithms."""

    @property
    def steadier(self) -> bool | None:
        """Whether rewritten rows give steadier estimates; None when the interval holds both answers."""
        if self.signal_to_noise.difference.low > 0:
            return True
        return False if self.signal_to_noise.difference.high < 0 else None


class CorpusEvidence(Record):
    """All of it, with what it was made from."""

    version: int = 1
    corpus_id: str
    rows: int
    changed: int
    """Rows whose span differs from the original."""
    leakage: Leakage | None
    """None: too few changed rows for a scorer."""
    drift: tuple[Drift, ...]
    gained_words: tuple[WordShift, ...]
    lost_words: tuple[WordShift, ...]
    names_kept: Interval | None
    """Share of changed rows that keep all capitalised words within sentences."""
    numbers_kept: Interval | None
    negation_kept: Interval | None
    """Share of changed rows that negate exactly when the original does."""
    by_label: tuple[GateByLabel, ...]
    held_out: HeldOutCount
    probes: RowProbes | None = None
    """None: no model was named."""
    notes: tuple[str, ...] = ()
