from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from optaware.errors import InputError

__all__ = ["FloatArray", "matrix", "t_quantile", "unit_interval", "vector"]

FloatArray = npt.NDArray[np.float64]


def unit_interval(value: float, name: str) -> float:
    """`value` if it lies strictly between 0 and 1."""
    if not 0.0 < value < 1.0:
        raise InputError.of("not-a-share", f"{name} = {value}", "it must lie between 0 and 1", f"Correct {name}.")
    return float(value)


def vector(values: Any, name: str) -> FloatArray:
    """`values` as a non-empty, finite array of one axis."""
    return _finite(np.asarray(values, dtype=np.float64), name, 1)


def matrix(values: Any, name: str) -> FloatArray:
    """`values` as a non-empty, finite array [seeds, examples]; one axis counts as one seed."""
    array = np.asarray(values, dtype=np.float64)
    return _finite(array[None, :] if array.ndim == 1 else array, name, 2)


def _finite(array: FloatArray, name: str, axes: int) -> FloatArray:
    if array.ndim != axes or array.size == 0:
        raise InputError.of(
            "array-shape", f"{name} of shape {array.shape}", f"{axes} non-empty axes are needed", "Correct the array."
        )
    if not np.isfinite(array).all():
        raise InputError.of("not-finite", name, "it holds NaN or infinite values", "Leave those entries out.")
    return array


def t_quantile(level: float, df: float) -> float:
    """The half-width, in standard errors, of a two-sided t interval with `df` degrees of freedom."""
    from scipy.special import stdtrit

    return float(stdtrit(df, 0.5 + level / 2.0))
