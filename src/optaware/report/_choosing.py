"""What choosing among grid points took, so that arms can be compared with all that was spent on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optaware.report._words import number

__all__ = ["choosing"]


def choosing(choices: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """One sentence per method: forward passes of the runs that chose, and how many points were stopped early.

    Args:
        choices: As the study wrote them down.
    """
    said = []
    for method in dict.fromkeys(choice["method"] for choice in choices):
        points = [point for choice in choices if choice["method"] == method for point in choice["points"]]
        if not all("forwards" in point for point in points):  # written down by an earlier version
            continue
        made = sum(point["forwards"] for point in points)
        asked = [point["forwards_asked"] for point in points]
        stopped = sum(point["state"] == "pruned" for point in points)
        spent = f"{method}: {number(made)} forward passes of a batch to choose by"
        if stopped:
            whole = "" if None in asked else f" instead of {number(sum(asked))}"
            spent += f"{whole}; {stopped} of {len(points)} points were stopped early and cannot be chosen"
        said.append(f"{spent}.")
    if any(point["state"] == "pruned" for choice in choices for point in choice["points"]):
        said.append(
            "Stopping early gives more of the budget to points that learn fast: points were judged after unequal "
            "numbers of forward passes, and one that is slow at first may have been stopped wrongly."
        )
    return tuple(said)
