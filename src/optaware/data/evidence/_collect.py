"""All evidence on one finished corpus that needs no model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from optaware._io import read_json
from optaware.data._corpus import checked_rows, load_user_corpus
from optaware.data._near import HeldOut
from optaware.data.evidence._drift import drift_of, kept_shares, shifted_words
from optaware.data.evidence._leakage import FEWEST_ROWS, measure_leakage
from optaware.records import CorpusEvidence, DatasetCard, Example, GateByLabel, HeldOutCount, RowProbes, parse_record
from optaware.stats import wilson
from optaware.tasks import Task

__all__ = ["collect_evidence"]


def collect_evidence(
    folder: Path,
    task: Task,
    examples: Sequence[Example],
    *,
    held_out: HeldOut | None = None,
    probes: RowProbes | None = None,
    seed: int = 0,
    marked: bool = True,
) -> CorpusEvidence:
    """Leakage, drift, the gate's balance between labels, and nearness to held-out rows.

    Args:
        folder: Folder of a finished corpus.
        task: The task.
        examples: The original training rows.
        held_out: Spans of the dev and test rows; None: not looked at.
        probes: What the model to be trained says, measured elsewhere.
        seed: Draws folds and bootstraps.
        marked: The corpus has its DONE marker, by which its rows are checked; otherwise its maker is at its last step.

    Raises:
        InputError: The corpus is not finished, or was made for other rows.
        IntegrityError: Its rows were changed since.
    """
    rows = checked_rows(folder) if marked else folder / "train.jsonl"
    after = load_user_corpus(rows, task, examples)
    card = parse_record(DatasetCard, read_json(folder / "card.json"), str(folder / "card.json"))
    rng = np.random.default_rng(seed)
    spans = [(task.span_text(a), task.span_text(b)) for a, b in zip(examples, after, strict=True)]
    changed = [number for number, (a, b) in enumerate(spans) if a != b]
    old, new = [spans[n][0] for n in changed], [spans[n][1] for n in changed]
    leakage = measure_leakage(task, examples, after, rng=rng)
    kept = kept_shares(old, new) if changed else {}
    gained, lost = shifted_words(old, new)
    notes = []
    if leakage is None:
        notes.append(f"{len(changed)} rows changed; the leakage scorer needs {FEWEST_ROWS}.")
    if held_out is None or not len(held_out):
        notes.append("No dev or test rows were at hand, so nearness to them is not known.")
    return CorpusEvidence(
        corpus_id=card.corpus_id,
        rows=len(examples),
        changed=len(changed),
        leakage=leakage,
        drift=drift_of(old, new, rng=rng) if changed else (),
        gained_words=gained,
        lost_words=lost,
        names_kept=kept.get("names"),
        numbers_kept=kept.get("numbers"),
        negation_kept=kept.get("negation"),
        by_label=_by_label(task, examples, set(changed)),
        held_out=HeldOutCount(
            texts=0 if held_out is None else len(held_out),
            near_before=_near([a for a, _ in spans], held_out),
            near_after=_near([b for _, b in spans], held_out),
            refused=card.reasons.get("check:near-duplicate", 0),
        ),
        probes=probes,
        notes=tuple(notes),
    )


def _near(spans: Sequence[str], held_out: HeldOut | None) -> int:
    return 0 if held_out is None else sum(held_out.nearest(span) is not None for span in spans)


def _by_label(task: Task, examples: Sequence[Example], changed: set[int]) -> tuple[GateByLabel, ...]:
    rows = Counter(example.label for example in examples)
    rewritten = Counter(examples[number].label for number in changed)
    names = _options(task, examples[0])
    fixed = all(_options(task, example) == names for example in examples[:20])
    return tuple(
        GateByLabel(
            label=names[label] if fixed and label < len(names) else f"option {label + 1}",
            rows=rows[label],
            rewritten=rewritten[label],
            share=wilson(rewritten[label], rows[label]),
        )
        for label in sorted(rows)
    )


def _options(task: Task, example: Example) -> list[str]:
    options = task.context(example)["options"]
    return [str(option) for option in options] if isinstance(options, list | tuple) else []
