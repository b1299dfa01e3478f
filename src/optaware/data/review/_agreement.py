"""How far two labellers agree, and which of their labels both give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optaware.data.review._labels import standing
from optaware.errors import InputError
from optaware.records import Interval, PairLabel, Record
from optaware.stats import cohen_kappa, wilson

__all__ = ["Agreement", "agreed_labels", "agreement"]


class Agreement(Record):
    """Two labellers on the pairs that both answered.

    `table[a][b]` counts the pairs that the first called `a` and the second `b`.
    """

    first: str
    second: str
    pairs: int
    agreed: int
    share: Interval
    kappa: float
    table: dict[str, dict[str, int]]
    differ: tuple[str, ...]
    """Ids of the pairs on which they differ."""


def agreement(labels: Sequence[PairLabel], first: str | None = None, second: str | None = None) -> Agreement:
    """Compare two labellers on the pairs that both answered; skipped pairs do not count.

    Args:
        labels: Lines of one or more labels files, in order.
        first: One labeller; None for both: the only two there are.
        second: The other.

    Raises:
        InputError: There are not exactly two labellers and none are named, one of them has no labels, or they have no
            pair in common.
    """
    by_labeller = standing(labels)
    known = sorted(by_labeller)
    if first is None or second is None:
        if len(known) != 2:
            raise InputError.of(
                "labellers-two",
                f"labels by {', '.join(known) or 'nobody'}",
                "agreement is between two labellers",
                "Name two of them with --labellers.",
            )
        first, second = known
    for name in (first, second):
        if name not in by_labeller:
            raise InputError.of(
                "labeller-unknown", name, "the files hold no label by them", f"Choose of: {', '.join(known)}."
            )
    one, two = by_labeller[first], by_labeller[second]
    common = [name for name in one if name in two and one[name].verdict and two[name].verdict]
    if not common:
        raise InputError.of(
            "labels-nothing-common", f"{first} and {second}", "they answered no pair both", "Label some pairs twice."
        )
    answers: list[Any] = ["same", "not the same"]
    table = {a: dict.fromkeys(answers, 0) for a in answers}
    for name in common:
        table[str(one[name].verdict)][str(two[name].verdict)] += 1
    agreed = table["same"]["same"] + table["not the same"]["not the same"]
    return Agreement(
        first=first,
        second=second,
        pairs=len(common),
        agreed=agreed,
        share=wilson(agreed, len(common)),
        kappa=cohen_kappa([one[name].verdict for name in common], [two[name].verdict for name in common]),
        table=table,
        differ=tuple(name for name in common if one[name].verdict != two[name].verdict),
    )


def agreed_labels(labels: Sequence[PairLabel], labeller: str | None = None) -> tuple[list[PairLabel], list[str]]:
    """One answered label per pair: the one that all labellers of the pair give.

    Args:
        labels: Lines of labels files, in order.
        labeller: Only this labeller counts.

    Returns:
        The labels, in the order in which pairs first occur, and the ids of the pairs on which labellers differ, which
        are left out: a judge cannot be measured on what people disagree about.

    Raises:
        InputError: The labeller has no labels.
    """
    by_labeller = standing(labels)
    if labeller is not None and labeller not in by_labeller:
        raise InputError.of(
            "labeller-unknown",
            labeller,
            "the files hold no label by them",
            f"Choose of: {', '.join(sorted(by_labeller)) or 'nobody'}.",
        )
    found: dict[str, list[PairLabel]] = {}
    for name, own in by_labeller.items():
        if labeller in (None, name):
            for pair, label in own.items():
                if label.verdict is not None:
                    found.setdefault(pair, []).append(label)
    order = {label.pair_id: place for place, label in reversed(list(enumerate(labels)))}
    ordered = sorted(found, key=lambda pair: order[pair])
    differ = [pair for pair in ordered if len({label.verdict for label in found[pair]}) > 1]
    return [found[pair][0] for pair in ordered if pair not in differ], differ
