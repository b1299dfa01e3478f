"""Evidence on a corpus with everything it needs: rows, held-out rows, and the model to be trained."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from optaware._io import write_json, write_text
from optaware.data import HeldOut, corpus_rows, load_corpus, read_corpus_spec
from optaware.data.evidence import collect_evidence, evidence_page
from optaware.errors import InputError
from optaware.records import (
    CorpusEvidence,
    Drift,
    Example,
    Interval,
    ModelRef,
    RowProbes,
    SearchSpec,
)
from optaware.stats import crossed_bootstrap
from optaware.study._row_measure import open_measure
from optaware.tasks import Task, get_task

if TYPE_CHECKING:
    from optaware.study._row_measure import Probed

__all__ = ["gather_evidence", "write_evidence"]

_DRAWS = 2000
_FIGURES = ("loss", "|g|", "variance of g", "curvature", "|curvature|", "perplexity of the span")


def gather_evidence(
    folder: Path,
    *,
    data_dir: Path | None = None,
    model: ModelRef | None = None,
    directions: int = 16,
    eps: float = 1e-3,
    rows: int = 200,
    batch_size: int = 16,
    seed: int = 0,
    prompt: str = "default",
    max_length: int = 1024,
) -> CorpusEvidence:
    """Collect the evidence on a finished corpus and write it beside it, as `evidence.json` and `evidence.md`.

    Training rows only are measured; dev and test rows are compared with, and never scored. A trial of a template build
    is a corpus too (see `corpus_rows`).

    Args:
        folder: Folder of the corpus.
        data_dir: Folder of data sets.
        model: The model to be trained; None: no zeroth-order statistics.
        directions: Probes of each row.
        eps: Perturbation scale.
        rows: Most changed rows that are measured, evenly spread over the corpus.
        batch_size: Batch that the signal-to-noise ratio is of.
        seed: Directions, folds and bootstraps are drawn from it.
        prompt: Prompt style.
        max_length: Tokens a row.

    Raises:
        InputError: The corpus is not finished, its rows are not at hand, or too few changed.
    """
    spec = read_corpus_spec(folder)
    task = get_task(spec.task)
    rows_of = corpus_rows(folder, spec, task, data_dir=data_dir)
    probes = None
    if model is not None:
        search = SearchSpec(
            model=model, directions=directions, eps=eps, seed=seed, prompt=prompt, max_length=max_length
        )
        probes = _probe(folder, task, rows_of.train, search, rows, batch_size)
    found = collect_evidence(
        folder,
        task,
        rows_of.train,
        held_out=HeldOut.of(task, rows_of.held_out) if rows_of.held_out else None,
        probes=probes,
        seed=seed,
    )
    write_evidence(folder, found)
    return found


def write_evidence(folder: Path, found: CorpusEvidence) -> None:
    """Put the evidence beside the corpus that it is of."""
    write_json(folder / "evidence.json", found.to_json())
    write_text(folder / "evidence.md", evidence_page(found))


def _probe(
    folder: Path, task: Task, examples: Sequence[Example], search: SearchSpec, most: int, batch_size: int
) -> RowProbes:
    after = load_corpus(folder, task, examples)
    changed = [n for n, (a, b) in enumerate(zip(examples, after, strict=True)) if a != b]
    if len(changed) < 3:
        raise InputError.of(
            "too-few-changed",
            f"{len(changed)} rewritten rows",
            "statistics of so few mean nothing",
            "Leave out --model, or make a corpus with more accepted rewrites.",
        )
    chosen = changed if len(changed) <= most else [changed[n * len(changed) // most] for n in range(most)]
    measure = open_measure(search, task)
    assert measure is not None
    assert search.model is not None
    before, now = measure.probe([examples[n] for n in chosen]), measure.probe([after[n] for n in chosen])
    rng = np.random.default_rng(search.seed)
    figures = tuple(
        _figure(name, old, new, rng)
        for name, old, new in zip(_FIGURES, _columns(before), _columns(now), strict=True)
        if np.isfinite(old).any() and np.isfinite(new).any()
    )
    return RowProbes(
        model=search.model.name.rstrip("/").rsplit("/", 1)[-1],
        dtype=search.model.dtype,
        directions=search.directions,
        eps=search.eps,
        batch_size=batch_size,
        rows=len(chosen),
        figures=figures,
        signal_to_noise=_signal(before.g, now.g, batch_size, rng),
    )


def _columns(probed: Probed) -> list[NDArray[np.float64]]:
    return [
        probed.loss,
        np.abs(probed.g).mean(axis=1),
        probed.g.var(axis=1, ddof=1),
        probed.curvature.mean(axis=1),
        np.abs(probed.curvature).mean(axis=1),
        probed.perplexity,
    ]


def _figure(name: str, old: NDArray[np.float64], new: NDArray[np.float64], rng: np.random.Generator) -> Drift:
    both = np.isfinite(old) & np.isfinite(new)
    old, new = old[both], new[both]
    return Drift(
        name=name,
        before=float(old.mean()),
        after=float(new.mean()),
        difference=crossed_bootstrap(new - old, rng=rng, draws=_DRAWS),
    )


def signal_to_noise(g: NDArray[np.float64], batch_size: int) -> float:
    """`B·Σ_k max(m_k² − v_k/N, 0) / Σ_k v_k` with m_k, v_k the mean and variance over N rows of g along direction k.

    `v_k/N` is what the squared mean of N rows holds of noise; without taking it off, few rows would look like signal.
    """
    mean, variance = g.mean(axis=0), g.var(axis=0, ddof=1)
    signal = float((mean**2 - variance / len(g)).sum())
    return batch_size * max(signal, 0.0) / float(variance.sum()) if variance.sum() > 0 else 0.0


def _signal(old: NDArray[np.float64], new: NDArray[np.float64], batch_size: int, rng: np.random.Generator) -> Drift:
    """The ratio before and after; rows are drawn with replacement, in pairs, for the interval of its logarithm.

    Each draw takes N − 1 of N rows, as `crossed_bootstrap` does for seeds; a floor of 1e-3 keeps logarithms finite.
    """

    def log_ratio(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
        floor = 1e-3
        return float(np.log(max(signal_to_noise(b, batch_size), floor) / max(signal_to_noise(a, batch_size), floor)))

    drawn = np.empty(_DRAWS)
    for n in range(_DRAWS):
        rows = rng.integers(0, len(old), max(2, len(old) - 1))
        drawn[n] = log_ratio(old[rows], new[rows])
    low, high = np.quantile(drawn, [0.025, 0.975])
    estimate = log_ratio(old, new)
    return Drift(
        name="signal to noise of a batch",
        before=signal_to_noise(old, batch_size),
        after=signal_to_noise(new, batch_size),
        difference=Interval(
            estimate=estimate,
            low=min(float(low), estimate),
            high=max(float(high), estimate),
            level=0.95,
            method=f"paired bootstrap of the logarithm over {len(old)} rows, {_DRAWS} draws",
        ),
    )
