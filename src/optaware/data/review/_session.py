"""One labeller at one set of pairs: what is open, what is done, one act at a time. Page and terminal both drive it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from threading import RLock
from typing import Any, Literal

from optaware.data.review._diff import Segment, differences, visible
from optaware.data.review._labels import LabelsFile
from optaware.errors import InputError
from optaware.records import Fault, PairLabel, ReviewPair

__all__ = ["Review", "Shown"]

Shown = Literal["all", "open", "same", "not the same", "skipped", "noted"]


class Review:
    """Pairs, the labels file, and what may be done with them. Safe to use from several threads.

    Args:
        pairs: What is to be labelled, in this order.
        labels: Where labels go.
        title: What stands at the head of the page.
    """

    def __init__(self, pairs: Sequence[ReviewPair], labels: LabelsFile, title: str = "") -> None:
        if not pairs:
            raise InputError.of("pairs-missing", title or "the source", "it holds no pairs", "Check the filters.")
        self.pairs = {pair.id: pair for pair in pairs}
        self.title = title
        self._labels = labels
        self._lock = RLock()

    @property
    def labeller(self) -> str:
        """Whose labels are made."""
        return self._labels.labeller

    def state(self) -> dict[str, Any]:
        """Who labels what, and every pair's state, in order."""
        with self._lock:
            return {
                "title": visible(self.title),
                "labeller": visible(self.labeller),
                "labels": visible(str(self._labels.path)),
                "items": [self._item(pair) for pair in self.pairs.values()],
                "counts": self.counts(),
            }

    def counts(self) -> dict[str, int]:
        """Pairs in all, and how many are `same`, `not the same`, `skipped` and `open`."""
        with self._lock:
            found = Counter(label.answer for name, label in self._labels.current.items() if name in self.pairs)
            named = {answer: found[answer] for answer in ("same", "not the same", "skipped")}
            return {"pairs": len(self.pairs), **named, "open": len(self.pairs) - sum(named.values())}

    def label_of(self, name: str) -> PairLabel | None:
        """The labeller's label on a pair."""
        return self._labels.current.get(name)

    def labels(self) -> list[PairLabel]:
        """The labeller's labels on these pairs, in the order of the pairs."""
        with self._lock:
            current = self._labels.current
            return [current[name] for name in self.pairs if name in current]

    def names(self, shown: Shown = "all", outcome: str = "") -> list[str]:
        """Ids of the pairs that a filter lets through, in order."""
        with self._lock:
            return [
                name
                for name, pair in self.pairs.items()
                if outcome in ("", pair.outcome) and _lets_through(shown, self._labels.current.get(name))
            ]

    def pair(self, name: str) -> dict[str, Any]:
        """All that is shown of one pair.

        Raises:
            InputError: There is no such pair.
        """
        found = self._pair(name)
        before, after = differences(found.original, found.rewritten)
        with self._lock:
            return {
                **self._item(found),
                "example_id": visible(found.example_id or ""),
                "given": [[visible(heading), _lines(value)] for heading, value in found.given.items()],
                "original": _segments(before),
                "rewritten": _segments(after),
                "origin": visible(found.origin),
                "reason": visible(found.reason),
            }

    def label(
        self,
        name: str,
        answer: Literal["same", "not the same", "skipped"],
        *,
        faults: Sequence[Fault] = (),
        note: str = "",
        seconds: float | None = None,
    ) -> dict[str, Any]:
        """Label a pair; returns its new state and the counts.

        Raises:
            InputError: No such pair, or an answer and faults that do not go together.
        """
        pair = self._pair(name)
        with self._lock:
            self._labels.add(pair, answer, faults=faults, note=note, seconds=seconds)
            return {"item": self._item(pair), "counts": self.counts()}

    def undo(self) -> dict[str, Any]:
        """Take back the latest act; `item` is None when there is none."""
        with self._lock:
            name = self._labels.undo(self.pairs)
            return {"item": None if name is None else self._item(self.pairs[name]), "counts": self.counts()}

    def _pair(self, name: str) -> ReviewPair:
        if name not in self.pairs:
            raise InputError.of("pair-unknown", repr(name)[:80], "there is no such pair here", "Load the page again.")
        return self.pairs[name]

    def _item(self, pair: ReviewPair) -> dict[str, Any]:
        label = self._labels.current.get(pair.id)
        return {
            "id": pair.id,
            "outcome": visible(pair.outcome),
            "answer": None if label is None else label.answer,
            "faults": [] if label is None else list(label.faults),
            "note": "" if label is None else label.note,
        }


def _lets_through(shown: Shown, label: PairLabel | None) -> bool:
    if shown == "all":
        return True
    if shown == "open":
        return label is None
    if label is None:
        return False
    return bool(label.note) if shown == "noted" else label.answer == shown


def _lines(value: str | list[str]) -> list[str]:
    return [visible(line) for line in ([value] if isinstance(value, str) else value)]


def _segments(found: list[Segment]) -> list[list[Any]]:
    return [[segment.text, segment.changed] for segment in found]
