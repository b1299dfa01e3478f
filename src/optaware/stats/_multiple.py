from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from optaware.errors import InputError
from optaware.stats._check import FloatArray

__all__ = ["benjamini_hochberg", "holm"]


def holm(p_values: Sequence[float] | FloatArray) -> list[float]:
    """Holm's step-down correction: the chance of even one false claim in the family stays below the level.

    With p sorted upwards, `p̃(i) = max over j ≤ i of min(1, (m − j + 1)·p(j))`. Holds under any dependence.

    Args:
        p_values: The family's p-values, each from 0 to 1; may be empty.

    Returns:
        Corrected p-values in the order given.

    Raises:
        InputError: A value is not a probability.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    values = _probabilities(p_values)
    order = np.argsort(values, kind="stable")
    stepped = values[order] * np.arange(values.size, 0, -1)
    return _restore(np.minimum(1.0, np.maximum.accumulate(stepped)), order)


def benjamini_hochberg(p_values: Sequence[float] | FloatArray) -> list[float]:
    """Benjamini and Hochberg's correction: the expected share of false claims among the claims stays below the level.

    With p sorted upwards, `p̃(i) = min over j ≥ i of min(1, m/j·p(j))`. Needs independence or positive dependence.

    Args:
        p_values: The family's p-values, each from 0 to 1; may be empty.

    Returns:
        Corrected p-values in the order given.

    Raises:
        InputError: A value is not a probability.

    Source: Benjamini and Hochberg, JRSS B 57 (1995).
    """
    values = _probabilities(p_values)
    order = np.argsort(values, kind="stable")
    stepped = values[order] * (values.size / np.arange(1, values.size + 1))
    return _restore(np.minimum(1.0, np.minimum.accumulate(stepped[::-1])[::-1]), order)


def _probabilities(p_values: Sequence[float] | FloatArray) -> FloatArray:
    values = np.asarray(p_values, dtype=np.float64).reshape(-1)
    if not ((values >= 0.0) & (values <= 1.0)).all():
        raise InputError.of(
            "not-a-probability", str(values.tolist())[:80], "p-values lie from 0 to 1", "Leave out what has none."
        )
    return values


def _restore(corrected: FloatArray, order: np.typing.NDArray[np.intp]) -> list[float]:
    restored = np.empty_like(corrected)
    restored[order] = corrected
    return [float(value) for value in restored]
