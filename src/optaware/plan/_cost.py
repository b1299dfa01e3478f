from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optaware.plan._bind import Draft
from optaware.plan._surface import Surface

__all__ = ["arm_changes", "forwards_of", "forwards_per_step"]


def arm_changes(draft: Draft) -> tuple[dict[str, Any], ...]:
    """The settings that an entry adds to the baseline."""
    if draft.part is None:
        return ()
    return tuple(dict(reading.changes) for reading in draft.readings if reading.why_not is None and reading.changes)


def forwards_per_step(values: Mapping[str, Any], forward_only: bool) -> float:
    """Forward passes of a whole batch that one step takes; a backward pass counts as two more.

    With q queries: two-point 2q, one-sided q + 1, one-point q; a schedule that grows the queries from 1 to q takes
    their mean. A first-order step counts 3.
    """
    if not forward_only:
        return 3.0
    queries = values.get("queries", 1)
    if values.get("query_schedule", "constant") != "constant":
        queries = (1 + queries) / 2
    each = {"two-point": 2 * queries, "one-sided": queries + 1}
    return float(each.get(values.get("estimator", "two-point"), queries))


def forwards_of(surface: Surface, changes: Mapping[str, Any]) -> float | None:
    """Forward passes per step with these changes; None for a stranger's script, or values that cannot be."""
    made = surface.config_with(changes)
    return None if made is None else forwards_per_step(made.model_dump(), made.forward_only)
