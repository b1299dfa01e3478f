from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from optaware.report._words import duration, memory, number, percent, points

__all__ = ["Measure", "measure", "measures_of"]

Better = Literal["higher", "lower", ""]


@dataclass(frozen=True)
class Measure:
    """A quantity of a table: what it is called, how a value and a difference of it are written, which way is better.

    Attributes:
        key: Name among a run's values.
        title: Heading of its column.
        show: Writes a value.
        show_difference: Writes a difference.
        better: Which way is better.
        how: How it is measured, in one sentence.
        unit: Unit of a difference, where it is not the title's.
    """

    key: str
    title: str
    show: Callable[[float], str]
    show_difference: Callable[[float], str]
    better: Better
    how: str
    unit: str = ""


def _signed(show: Callable[[float], str]) -> Callable[[float], str]:
    def written(value: float) -> str:
        text = show(abs(value))
        return text if not value else ("+" if value > 0 else "−") + text

    return written


def _seconds(value: float) -> str:
    return duration(value)


def _bytes(value: float) -> str:
    return memory(int(value))


def _rate(value: float) -> str:
    return f"{value:,.1f}".replace(",", "\u202f")


def _hours(value: float) -> str:
    return f"{value:.4f}"


def _plain(value: float) -> str:
    return "–" if not math.isfinite(value) else number(round(value, 4), 4)


_KNOWN: dict[str, Measure] = {
    item.key: item
    for item in (
        Measure("accuracy", "accuracy, %", percent, points, "higher", "Share of test rows answered rightly.", "points"),
        Measure(
            "F1", "F1 (macro), %", percent, points, "higher", "Mean over labels of F1, on the test rows.", "points"
        ),
        Measure(
            "loss",
            "test loss",
            _plain,
            _signed(_plain),
            "lower",
            "Mean loss of the test rows, in the task's objective.",
        ),
        Measure(
            "steps to target",
            "steps to target",
            _plain,
            _signed(_plain),
            "lower",
            "First evaluation at the target: its update.",
        ),
        Measure(
            "forwards to target",
            "forward passes to target",
            _plain,
            _signed(_plain),
            "lower",
            "First evaluation at the target: forward passes of a batch spent until then.",
        ),
        Measure(
            "GPU-hours",
            "GPU-hours",
            _hours,
            _signed(_hours),
            "lower",
            "Training and evaluation time on a GPU, in hours.",
        ),
        Measure(
            "wall time", "wall time", _seconds, _signed(_seconds), "lower", "Training and evaluation time of one run."
        ),
        Measure(
            "peak memory",
            "peak memory",
            _bytes,
            _signed(_bytes),
            "lower",
            "Largest memory held: of the GPU, else of the process.",
        ),
        Measure(
            "training speed",
            "training speed, rows/s",
            _rate,
            _signed(_rate),
            "higher",
            "Rows of the batch, divided by the median time of an update.",
        ),
        Measure(
            "forward passes",
            "forward passes",
            _plain,
            _signed(_plain),
            "lower",
            "Of a whole batch, in training; evaluations are not counted.",
        ),
        Measure(
            "processor time", "processor time", _seconds, _signed(_seconds), "lower", "Of the script and its children."
        ),
    )
}
_ASKED: dict[str, tuple[str, ...]] = {
    "convergence": ("steps to target", "forwards to target"),
    "memory reduction": ("peak memory",),
    "stability": (),
}
"""Metrics of plans that are told by other columns; stability is the spread over seeds, which every table has."""


def measure(key: str, units: Mapping[str, str], better: Mapping[str, Literal["higher", "lower"]]) -> Measure:
    """The quantity of this name; one that optaware does not know is shown as a plain number in its own unit."""
    if key in better or key not in _KNOWN:
        unit = units.get(key, "")
        title = f"{key}, {unit}" if unit else key
        return Measure(key, title, _plain, _signed(_plain), better.get(key, ""), "As the run reports it.")
    return _KNOWN[key]


def measures_of(name: str) -> tuple[str, ...]:
    """The columns that tell a plan's metric."""
    return _ASKED.get(name, (name,))
