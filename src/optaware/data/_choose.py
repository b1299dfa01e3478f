"""Which try of a row is decided on, and what the gate says of it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

from optaware.data._board import Board
from optaware.data._gate import decide, fitted
from optaware.data._measure import PREFERRED, Measure
from optaware.data._tries import Stand
from optaware.records import Decision, Example, RowMeasure

__all__ = ["Choice"]

_MEASURED_AT_ONCE = 512
_Place = tuple[int, int]
"""Row and attempt; attempt -1 is the original."""


class Choice:
    """Chooses among the tries of each row.

    Args:
        board: Where the corpus stands, with nothing left to ask.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._measure_id = ""

    def measure(self, measure: Measure) -> None:
        """Measure the original and every rewrite that passed, of rows where there is something to choose."""
        measures, search, on_progress = self._board.measures, self._board.spec.search, self._board.on_progress
        assert measures is not None
        assert search is not None
        self._measure_id = measure.id
        rows = range(len(self._board.examples))
        done, total = 0, sum(len(self._measured(row)) for row in rows)
        left = (place for row in rows for place in self._measured(row) if not self._figures(*place))
        while part := list(islice(left, _MEASURED_AT_ONCE)):
            found = measure([self._text_row(row, attempt) for row, attempt in part])
            for (row, attempt), figures in zip(part, found, strict=True):
                measures.add(
                    RowMeasure(
                        example_id=self._board.examples[row].id,
                        attempt=None if attempt < 0 else attempt,
                        measure_id=measure.id,
                        score=figures[PREFERRED[search.prefer]],
                        figures=dict(figures),
                    )
                )
            done += len(part)
            if on_progress is not None:
                on_progress(done, total, "measure")

    def _measured(self, row: int) -> list[_Place]:
        passed = [n for n in range(self._board.tries.most) if self._board.passed(row, n)]
        rewritten = [n for n in passed if self._board.stand(row, n) == Stand.OPEN]
        return [(row, -1), *((row, attempt) for attempt in rewritten)] if len(passed) > 1 and rewritten else []

    def _figures(self, row: int, attempt: int) -> RowMeasure | None:
        assert self._board.measures is not None
        found = self._board.measures.get(row * (self._board.tries.most + 1) + attempt + 1)
        return found if found is not None and found.measure_id == self._measure_id else None

    def _text_row(self, row: int, attempt: int) -> Example:
        example = self._board.examples[row]
        if attempt < 0:
            return example
        candidate = self._board.candidates.get(self._board.tries.slot(row, attempt))
        assert candidate is not None
        return self._board.task.with_span(example, fitted(self._board.task.span_text(example), candidate.text or ""))

    def _chosen(self, row: int) -> int:
        """The try that is decided on: of those that passed the one with the lowest score, the first among equals."""
        made = [n for n in range(self._board.tries.most) if self._board.stand(row, n)]
        passed = [n for n in made if self._board.passed(row, n)]
        if not passed:
            return made[-1]
        if self._board.measures is None or not self._measured(row):
            return passed[0]

        def score(attempt: int) -> float:
            found = self._figures(row, -1 if self._board.stand(row, attempt) == Stand.IDENTICAL else attempt)
            return math.inf if found is None or found.score is None else found.score

        return min(passed, key=score)

    def decisions(self) -> Iterator[Decision]:
        """What the gate says of each row, in order."""
        board = self._board
        for row, example in enumerate(board.examples):
            attempt = self._chosen(row)
            candidate = board.candidates.get(board.tries.slot(row, attempt))
            assert candidate is not None
            before = board.task.span_text(example)
            made = sum(1 for n in range(board.tries.most) if board.stand(row, n))
            decision = decide(example, before, candidate, board.checks(candidate), board.verdicts_of(row, attempt))
            yield decision.model_copy(update={"attempts": made, "attempt": attempt})
