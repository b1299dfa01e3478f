from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

__all__ = ["spread"]


def spread(losses: Sequence[float]) -> float:
    """Standard deviation (n − 1) of the finite losses; NaN when fewer than two are finite."""
    finite = [value for value in losses if math.isfinite(value)]
    return statistics.stdev(finite) if len(finite) > 1 else math.nan
