from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optaware.errors import ProblemList
from optaware.records import ManifestMetric

__all__ = ["collect_metrics"]

_MOST_BYTES = 64 << 20
"""Longer output is read from its end: the last value counts."""


def collect_metrics(metrics: Mapping[str, ManifestMetric], out: Path, output: Path) -> dict[str, float]:
    """Read what a script measured, from JSON files in its folder and from `name=value` lines of its output.

    Args:
        metrics: Where each one is.
        out: The folder that the script was given.
        output: What it printed.

    Returns:
        One finite number per metric.

    Raises:
        InputError: Metrics that are missing or are no numbers; all at once.
    """
    problems = ProblemList(str(out.parent))
    files: dict[str, Any] = {}
    text = _tail(output) if any(metric.line is not None for metric in metrics.values()) else ""
    found: dict[str, float] = {}
    for name, metric in metrics.items():
        if metric.line is not None:
            value = _line(name, metric.line, text, problems, output)
        else:
            value = _key(name, metric, out, files, problems)
        if value is not None:
            found[name] = value
    problems.raise_if_any()
    return found


def _tail(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - _MOST_BYTES))
        return file.read().decode("utf-8", "replace")


def _line(name: str, wanted: str, text: str, problems: ProblemList, output: Path) -> float | None:
    # The name may stand anywhere in a line (`epoch 3: acc=0.91`), as a whole word; the value ends at space or comma.
    lines = re.findall(rf"(?<![\w.-]){re.escape(wanted)}\s*[=:]\s*([^\s,;]+)", text)
    if not lines:
        why = f"no line of the output holds {wanted}=VALUE"
        problems.add("metric-missing", name, why, "Let the script print it, or correct the manifest.", str(output))
        return None
    try:
        value = float(lines[-1].removesuffix("%")) / (100 if lines[-1].endswith("%") else 1)
    except ValueError:
        value = math.nan
    return _checked(name, lines[-1], value, problems, str(output))


def _key(name: str, metric: ManifestMetric, out: Path, files: dict[str, Any], problems: ProblemList) -> float | None:
    path = (out / str(metric.file)).resolve()
    place = f"{path}: {metric.key}"
    if not path.is_relative_to(out.resolve()):
        why = "it lies outside of the run's folder"
        problems.add("metric-elsewhere", str(metric.file), why, "Name a file in that folder.", place)
        return None
    if str(path) not in files:
        files[str(path)] = _json(path)
    value = files[str(path)]
    if value is None:
        why = f"there is no readable JSON file {metric.file} in the run's folder"
        problems.add("metric-missing", name, why, "Let the script write it there, or correct the manifest.", place)
        return None
    for part in str(metric.key).split("."):
        if not isinstance(value, dict) or part not in value:
            problems.add("metric-missing", name, f"the file has no {metric.key}", "Correct the key.", place)
            return None
        value = value[part]
    number = _float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    return _checked(name, value, number, problems, place)


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return None


def _float(value: int | float) -> float:
    try:
        return float(value)
    except OverflowError:  # JSON has whole numbers of any length
        return math.inf


def _checked(name: str, given: Any, value: float, problems: ProblemList, place: str) -> float | None:
    if math.isfinite(value):
        return value
    shown = json.dumps(given) if not isinstance(given, str) else given
    problems.add("metric-type", f"{name} = {shown[:80]}", "it is no finite number", "Let it write a number.", place)
    return None
