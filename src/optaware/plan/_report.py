from __future__ import annotations

from typing import Literal

from optaware.plan._metrics import NamedMetric
from optaware.records import Record

__all__ = ["CheckReport", "CheckedEntry", "CheckedValue", "Finding"]


class Finding(Record):
    """One thing that a check found, with a better text where one can be told."""

    level: Literal["error", "warning"]
    code: str
    rank: int | None
    name: str | None
    given: str
    why: str
    next: str
    suggestion: str | None = None


class CheckedValue(Record):
    """An alternative: whether it is the method's own value (then it is not run again), and whether it means removal."""

    text: str
    baseline: bool
    removal: bool


class CheckedEntry(Record):
    """An entry as a study would run it.

    Attributes:
        rank: Its place in the plan, from 1.
        component: The method's field that its part means; None when unknown or no method was given.
        sure: Whether a whole name of that field stands in the part.
        runs: Runs that it adds to the baseline, for one seed.
    """

    rank: int
    name: str
    ablated_part: str
    action: str
    component: str | None
    sure: bool
    values: tuple[CheckedValue, ...]
    metrics: tuple[NamedMetric, ...]
    runs: int


class CheckReport(Record):
    """What a check found.

    Attributes:
        entries: The first k entries.
        left_out: Names of the entries after the k-th.
        runs: Runs for all seeds: (one baseline + those of the entries) × seeds.
        steps: Steps per run that the cost is told for.
        forwards: Forward passes of all these runs (a backward pass counts as two more), as far as entries can be bound;
            None without a method.
    """

    k: int | None
    method: str | None
    seeds: int
    entries: tuple[CheckedEntry, ...]
    left_out: tuple[str, ...]
    findings: tuple[Finding, ...]
    runs: int
    steps: int | None = None
    forwards: int | None = None

    @property
    def has_errors(self) -> bool:
        """Whether any finding is an error."""
        return any(finding.level == "error" for finding in self.findings)
