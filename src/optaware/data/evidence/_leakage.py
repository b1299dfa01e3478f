"""Can the label be told from the span alone, and better from the rewritten one?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from optaware.data._checks import row_options
from optaware.data.evidence._features import bag, pair_features
from optaware.records import Example, Leakage
from optaware.stats import paired_bootstrap
from optaware.tasks import Task

__all__ = ["FEWEST_ROWS", "measure_leakage"]

Floats = NDArray[np.float64]
Fit = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]
"""From training and held-out row numbers to whether each held-out row was answered right."""

FEWEST_ROWS = 40
_FOLDS, _REPEATS = 5, 5
_SMOOTHING = 0.5
_RIDGE = 1.0


def measure_leakage(
    task: Task, before: Sequence[Example], after: Sequence[Example], *, rng: np.random.Generator
) -> Leakage | None:
    """Compare a scorer trained and tested on rewritten spans with the same scorer on the original spans.

    The scorer sees the span, and where a row has options of its own these too, but no question, no hypothesis and
    nothing else of the row. It is cross-fitted: five folds, drawn five times, the same for both texts; every row is
    answered by a scorer that has not seen it. A span that gives its label away lets the scorer on rewritten spans win;
    what the original gave away already (a sentence's sentiment, say) counts on both sides.

    - Fixed options: naive Bayes on the words and word pairs of the span (Bernoulli, smoothed by ½).
    - Options of the row's own: a linear softmax over the options, on how much each resembles the span (ridge 1).

    Args:
        task: The task.
        before: Original rows.
        after: The same rows with their rewritten spans; rows that did not change are left out.
        rng: Draws the folds and the bootstrap.

    Returns:
        None when fewer than 40 rows changed.
    """
    changed = [n for n, (a, b) in enumerate(zip(before, after, strict=True)) if task.span_text(a) != task.span_text(b)]
    if len(changed) < FEWEST_ROWS:
        return None
    labels = np.array([before[n].label for n in changed])
    own = [row_options(task, before[n])[1] for n in changed]
    choices = all(own)
    fits: list[Fit] = []
    for rows in (before, after):
        spans = [task.span_text(rows[n]) for n in changed]
        fits.append(_pair_scorer(spans, own, labels) if choices else _bayes_scorer(spans, labels))
    right = np.zeros((2, len(changed)))
    for _ in range(_REPEATS):
        folds = rng.permutation(len(changed)) % _FOLDS
        for fold in range(_FOLDS):
            train, test = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            for side, fit in enumerate(fits):
                right[side, test] += fit(train, test) / _REPEATS
    words = (
        "a linear softmax over the options by their likeness to the span"
        if choices
        else ("naive Bayes on words and word pairs of the span")
    )
    return Leakage(
        scorer=f"{words}, {_FOLDS} folds drawn {_REPEATS} times",
        rows=len(changed),
        chance=max(Counter(labels.tolist()).values()) / len(changed),
        before=float(right[0].mean()),
        after=float(right[1].mean()),
        difference=paired_bootstrap(right[1], right[0], rng=rng),
    )


def _bayes_scorer(spans: Sequence[str], labels: NDArray[np.int64]) -> Fit:
    from scipy.sparse import csr_matrix

    bags = [bag(span) for span in spans]
    seen = Counter(item for each in bags for item in each)
    # What stands in one row only cannot help with another one.
    columns = {item: column for column, item in enumerate(sorted(item for item, count in seen.items() if count > 1))}
    rows, cells = [], []
    for row, each in enumerate(bags):
        found = [columns[item] for item in each if item in columns]
        rows += [row] * len(found)
        cells += found
    matrix = csr_matrix((np.ones(len(cells)), (rows, cells)), shape=(len(spans), max(1, len(columns))))
    classes = np.unique(labels)

    def fit(train: NDArray[np.int64], test: NDArray[np.int64]) -> NDArray[np.bool_]:
        scores = np.empty((len(test), len(classes)))
        for column, label in enumerate(classes):
            mine = train[labels[train] == label]
            counts = np.asarray(matrix[mine].sum(axis=0)).ravel()
            share = (counts + _SMOOTHING) / (len(mine) + 2 * _SMOOTHING)
            present, absent = np.log(share), np.log1p(-share)
            prior = np.log((len(mine) + _SMOOTHING) / (len(train) + len(classes) * _SMOOTHING))
            scores[:, column] = prior + absent.sum() + matrix[test] @ (present - absent)
        return np.asarray(classes[scores.argmax(axis=1)] == labels[test])

    return fit


def _pair_scorer(spans: Sequence[str], options: Sequence[Sequence[str]], labels: NDArray[np.int64]) -> Fit:
    most = max(map(len, options))
    width = pair_features("", list(options[0])).shape[1]
    features = np.zeros((len(spans), most, width))
    there = np.zeros((len(spans), most), dtype=bool)
    for row, (span, own) in enumerate(zip(spans, options, strict=True)):
        features[row, : len(own)] = pair_features(span, own)
        there[row, : len(own)] = True
    scale = features[there].std(axis=0)
    features /= np.where(scale > 0, scale, 1.0)

    def fit(train: NDArray[np.int64], test: NDArray[np.int64]) -> NDArray[np.bool_]:
        weights = _softmax_weights(features[train], there[train], labels[train])
        scores = np.where(there[test], features[test] @ weights, -np.inf)
        return np.asarray(scores.argmax(axis=1) == labels[test])

    return fit


def _softmax_weights(features: Floats, there: NDArray[np.bool_], labels: NDArray[np.int64]) -> Floats:
    """Weights w that maximise `Σ log softmax(x·w)[label] − ½·|w|²`, by Newton steps (the problem is convex)."""
    weights = np.zeros(features.shape[2])
    for _ in range(25):
        scores = np.where(there, features @ weights, -np.inf)
        share = np.exp(scores - scores.max(axis=1, keepdims=True))
        share /= share.sum(axis=1, keepdims=True)
        mean = (share[..., None] * features).sum(axis=1)
        right = features[np.arange(len(labels)), labels]
        gradient = (right - mean).sum(axis=0) - _RIDGE * weights
        centred = features - mean[:, None]
        hessian = np.einsum("nk,nki,nkj->ij", share, centred, centred) + _RIDGE * np.eye(len(weights))
        step = np.linalg.solve(hessian, gradient)
        weights = weights + step
        if float(np.abs(step).max()) < 1e-8:
            break
    return weights
