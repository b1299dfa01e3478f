"""What a search asks of a model; how it measures is the business of whoever hands it in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from optaware.records import Example

__all__ = ["PREFERRED", "Measure"]

PREFERRED: Mapping[str, str] = {
    "gradient-noise": "g_variance",
    "sharpness": "curvature",
    "loss": "loss",
    "perplexity": "perplexity",
}
"""Figure that a search wants low, by the name of the preference."""


class Measure(Protocol):
    """Measures how a model sees rows. This stage may not import the trainer, so its caller hands the measure in."""

    @property
    def id(self) -> str:
        """What the figures depend on, hashed."""

    @property
    def forwards_per_row(self) -> int:
        """Forward passes that one row costs."""

    def __call__(self, rows: Sequence[Example]) -> Sequence[Mapping[str, float | None]]:
        """Figures of each row by canonical name, in order; None where one is not finite.

        A row's figures must not depend on the rows that are measured beside it.
        """
