"""Going on with smaller parts of a batch when the device's memory is used up."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from optaware.models import free_cached_memory, is_out_of_memory
from optaware.train._batches import split

if TYPE_CHECKING:
    from optaware.models import EncodedExample

__all__ = ["Room"]

T = TypeVar("T")
Parts = Sequence["Sequence[EncodedExample]"]

_log = logging.getLogger("optaware")


class Room:
    """How many rows go through the model at once: all of a part, until that was too many for the device's memory.

    What is evaluated is a mean over the rows of all parts, each part weighted by its size, so smaller parts give the
    same value, up to the rounding of another order of additions (as `schedule.accumulation` does).

    Attributes:
        most_rows: Most rows at once; None: as many as a part has.
    """

    def __init__(self) -> None:
        self.most_rows: int | None = None

    def cut(self, parts: Parts) -> list[Sequence[EncodedExample]]:
        """The parts, cut into pieces of at most `most_rows` rows of about equal size."""
        if self.most_rows is None:
            return list(parts)
        return [piece for part in parts for piece in split(part, math.ceil(len(part) / self.most_rows))]

    def within(self, parts: Parts, evaluate: Callable[[Parts], T], begin_again: Callable[[], bool] | None = None) -> T:
        """`evaluate(parts)`; after "out of memory", again from the start in parts of half as many rows.

        Args:
            parts: The batch.
            evaluate: Must leave nothing behind when memory is used up, or `begin_again` undoes it.
            begin_again: Called before the next try; False when there is none, because something was changed for good.

        Raises:
            RuntimeError: Not even one row has room, or there is no next try (`is_out_of_memory` tells it).
        """
        while True:
            pieces = self.cut(parts)
            most = max(map(len, pieces))
            try:
                return evaluate(pieces)
            except RuntimeError as error:
                if not is_out_of_memory(error) or most <= 1 or (begin_again is not None and not begin_again()):
                    raise
            self.most_rows = math.ceil(most / 2)
            _log.warning("out of memory with %d rows at once; going on with at most %d", most, self.most_rows)
            free_cached_memory()
