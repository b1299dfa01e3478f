from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optaware.records import Decision, Interval
from optaware.report._arms import task_name
from optaware.report._corpus_facts import corpus_facts
from optaware.report._inputs import ReportCorpus
from optaware.report._words import Part, percent, reason_words, word_diff
from optaware.stats import wilson

__all__ = ["CorpusView", "ExampleView", "corpus_view"]

_SHOWN = {"rejected": 16, "failed": 4, "accepted": 12}
"""Examples shown per corpus, by outcome; the page would grow without bound otherwise."""


@dataclass(frozen=True)
class ExampleView:
    """One rewritten row side by side with its original."""

    example_id: str
    corpus_id: str
    variant: str
    task: str
    outcome: str
    reason: str
    before: tuple[Part, ...]
    after: tuple[Part, ...] | None
    notes: tuple[str, ...]
    attempts: int


@dataclass(frozen=True)
class CorpusView:
    """One corpus's counts with what follows from them."""

    corpus: ReportCorpus
    title: str
    accuracy: Interval | None
    accepted: bool
    verdict: str
    reasons: tuple[tuple[str, int], ...]
    examples: tuple[ExampleView, ...]
    facts: tuple[str, ...] = ()
    """How rewrites were tried and chosen, and what the evidence says; in sentences."""


def corpus_view(corpus: ReportCorpus) -> CorpusView:
    """Rewriter accuracy with Wilson's interval, and whether the corpus reaches the share that the study asks for."""
    card, gate = corpus.card, corpus.spec.gate
    title = f"{task_name(card.task)}, {card.variant}"
    if not card.rows:
        return CorpusView(corpus, title, None, False, "the corpus has no rows.", (), ())
    if corpus.spec.given is not None:  # its card counts every row as accepted, since nobody judged any
        verdict = "the rows were given; nobody judged whether they keep the meaning."
        return CorpusView(corpus, title, None, True, verdict, (), tuple(_examples(corpus)), corpus_facts(corpus))
    kept = card.rows - card.accepted
    share, wanted = percent(card.rewriter_accuracy), percent(gate.accept_at, 0)
    accepted = card.rewriter_accuracy >= gate.accept_at
    if accepted:
        verdict = f"{share} % of rewrites were accepted, at or above the {wanted} % that the study asks for."
    else:
        verdict = (
            f"only {share} % of rewrites were accepted, below the {wanted} % that the study asks for. {kept} of "
            f"{card.rows} training rows are the original ones, so runs on this corpus test a mixture."
        )
    reasons = tuple(sorted(_reasons(corpus).items(), key=lambda item: (-item[1], item[0])))
    return CorpusView(
        corpus,
        title,
        wilson(card.accepted, card.rows),
        accepted,
        verdict,
        reasons,
        tuple(_examples(corpus)),
        corpus_facts(corpus),
    )


def _reasons(corpus: ReportCorpus) -> dict[str, int]:
    """Reasons for rows that were not accepted, as they stand on the card; the card also counts accepted ones."""
    kept = {decision.reason for decision in corpus.decisions if decision.outcome != "accepted"}
    return {reason: count for reason, count in corpus.card.reasons.items() if reason in kept}


def _examples(corpus: ReportCorpus) -> list[ExampleView]:
    """Some rows of each outcome, evenly spread over the corpus."""
    chosen: list[ExampleView] = []
    for outcome, most in _SHOWN.items():
        rows = [decision for decision in corpus.decisions if decision.outcome == outcome]
        chosen += [_example(corpus, decision) for decision in _spread(rows, most)]
    return chosen


def _spread(rows: Sequence[Decision], most: int) -> list[Decision]:
    if len(rows) <= most:
        return list(rows)
    return [rows[index * len(rows) // most] for index in range(most)]


def _example(corpus: ReportCorpus, decision: Decision) -> ExampleView:
    if decision.rewritten is None:
        before: list[Part] = [("same", decision.original)]
        after = None
    else:
        before, marked = word_diff(decision.original, decision.rewritten)
        after = tuple(marked)
    notes = [f"{check.name}: {check.detail}".rstrip(": ") for check in decision.checks if not check.passed]
    return ExampleView(
        example_id=decision.example_id,
        corpus_id=corpus.corpus_id,
        variant=corpus.card.variant,
        task=task_name(corpus.card.task),
        outcome=decision.outcome,
        reason=reason_words(decision.reason),
        before=tuple(before),
        after=after,
        notes=tuple(notes),
        attempts=decision.attempts,
    )
