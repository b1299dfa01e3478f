from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from optaware.records import Interval, Leakage, RowProbes
from optaware.report._arms import task_name
from optaware.report._inputs import ReportCorpus

__all__ = ["corpus_facts", "equal_cost"]


def corpus_facts(corpus: ReportCorpus) -> tuple[str, ...]:
    """How many rewrites a row had, what chose among them, and what the evidence says of the rows that changed."""
    spec, card, evidence = corpus.spec, corpus.card, corpus.evidence
    facts = []
    if spec.search is not None:
        measured = (
            f", with {card.measured_forwards:,} forward passes on training rows" if card.measured_forwards else ""
        )
        facts.append(f"kept: {spec.search.words}{measured}.")
    if spec.retries:
        again = sum(count for tries, count in (card.attempts or {}).items() if int(tries) > _sampled(corpus))
        facts.append(f"{again} rows were tried again, up to {spec.retries} times, with the reason of the rejection.")
    if evidence is not None:
        if evidence.leakage is not None:
            facts.append(_leak(evidence.leakage))
        if evidence.held_out.texts and evidence.held_out.near_after:
            facts.append(f"{evidence.held_out.near_after} training spans are near-duplicates of dev or test rows.")
        if any(a.share.low > b.share.high for a in evidence.by_label for b in evidence.by_label):
            facts.append("the gate let through rewrites of one label more often than of another.")
        if evidence.probes is not None:
            facts.append(_steadiness(evidence.probes))
    return tuple(facts)


def _sampled(corpus: ReportCorpus) -> int:
    return corpus.spec.search.candidates if corpus.spec.search is not None else 1


def _leak(found: Leakage) -> str:
    points = _points(found.difference)
    said = "a scorer that sees nothing but the span finds the label"
    if found.leaks:
        return f"labels leak: {said} {points} points more often from the rewrites."
    return f"no leak was found: {said} {points} points more often from the rewrites, an interval that holds zero."


def _steadiness(found: RowProbes) -> str:
    ratio = found.signal_to_noise.difference
    said = {True: "steadier than", False: "noisier than", None: "not told apart in steadiness from"}[found.steadier]
    return (
        f"zeroth-order estimates of rewritten rows are {said} those of the original ones under {found.model}: "
        f"logarithm of the signal-to-noise ratio {ratio.estimate:+.2f} ({ratio.low:+.2f} to {ratio.high:+.2f})."
    )


def _points(interval: Interval) -> str:
    return f"{100 * interval.estimate:+.1f} ({100 * interval.low:+.1f} to {100 * interval.high:+.1f})"


def equal_cost(corpora: Sequence[ReportCorpus]) -> tuple[str, ...]:
    """Which variants of a task cost alike, so that their runs may be compared: as many rewrites a row, calls beside.

    Said only where a variant had several rewrites a row; a variant with one rewrite is then named as the cheaper one.
    """
    by_task: defaultdict[str, defaultdict[int, list[ReportCorpus]]] = defaultdict(lambda: defaultdict(list))
    for corpus in corpora:
        if corpus.spec.given is None:
            by_task[task_name(corpus.card.task)][_sampled(corpus)].append(corpus)
    said = []
    for task, groups in by_task.items():
        if set(groups) == {1}:
            continue
        parts = []
        for rewrites, members in sorted(groups.items(), reverse=True):
            names = ", ".join(f"{each.card.variant} ({each.card.calls:,} calls)" for each in members)
            parts.append(f"{rewrites} rewrite{'s' * (rewrites > 1)} a row: {names}")
        said.append(f"{task}: {'; '.join(parts)}. Variants with as many rewrites a row cost alike.")
    return tuple(said)
