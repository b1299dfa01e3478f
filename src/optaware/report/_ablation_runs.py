from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optaware.report._inputs import RunState

__all__ = ["AblationRun", "CurvePoint", "target_loss", "to_target"]


@dataclass(frozen=True)
class CurvePoint:
    """One evaluation on the dev rows: after which update, after how many forward passes, loss and accuracy."""

    step: int
    forwards: int
    loss: float | None
    accuracy: float | None


@dataclass(frozen=True)
class AblationRun:
    """One run of a plan as its report sees it, whatever ran it.

    Attributes:
        run_id: Its id.
        seed: Its seed.
        state: `done`, `diverged`, `failed` or `missing`.
        values: What was measured, by canonical name: shares as shares, times in seconds, memory in bytes.
        correct: Whether each test row was answered rightly, by row; None when only totals are known.
        curve: Evaluations on the dev rows.
        detail: Why it is not done.
        environment: Snapshot of versions and machine.
        device: Device that it ran on.
    """

    run_id: str
    seed: int
    state: RunState
    values: Mapping[str, float | None] = field(default_factory=dict)
    correct: Mapping[str, int] | None = None
    curve: tuple[CurvePoint, ...] = ()
    detail: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)
    device: str = ""

    @property
    def counts(self) -> bool:
        """Whether it has a result; one that diverged has, too."""
        return self.state in ("done", "diverged")


def target_loss(start: float | None, baseline: list[AblationRun], share: float) -> float | None:
    """The dev loss that counts as converged: `L₀ − share·(L₀ − L*)`.

    Args:
        start: L₀, dev loss of the untrained model; None: the mean of the baseline's first evaluations is taken.
        baseline: The baseline's runs; L* is the mean over them of the lowest dev loss.
        share: Share of the way.

    Returns:
        None when the baseline has no curve, or did not get below L₀.
    """
    curves = [[point.loss for point in run.curve if point.loss is not None] for run in baseline if run.counts]
    curves = [losses for losses in curves if losses]
    if not curves:
        return None
    first = start if start is not None else sum(losses[0] for losses in curves) / len(curves)
    lowest = sum(min(losses) for losses in curves) / len(curves)
    return first - share * (first - lowest) if lowest < first else None


def to_target(run: AblationRun, target: float | None) -> CurvePoint | None:
    """The first evaluation of a run at or below the target; None when it never got there."""
    if target is None:
        return None
    return next((point for point in run.curve if point.loss is not None and point.loss <= target), None)
