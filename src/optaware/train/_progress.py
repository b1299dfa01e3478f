"""How far a run is: what a checkpoint's state holds beside tensors."""

from __future__ import annotations

import math
from typing import Any, Literal

from optaware.records import Record, Score
from optaware.train._types import StepResult

__all__ = ["Progress"]


class Progress(Record):
    """Counters of a run, and its best evaluation so far."""

    step: int = 0
    forwards: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    train_s: float = 0.0
    eval_s: float = 0.0
    evaluations_since_best: int = 0
    best_step: int | None = None
    best: Score | None = None
    most_rows: int | None = None
    """Rows that go through the model at once, after more had no room."""
    ended: Literal["", "done", "diverged"] = ""
    detail: str = ""

    def with_(self, **changes: Any) -> Progress:
        """A copy with some fields changed."""
        return self.model_copy(update=changes)

    def after_step(self, result: StepResult, seconds: float) -> Progress:
        """After one more update."""
        return self.with_(
            step=self.step + 1,
            forwards=self.forwards + result.forwards,
            skipped=self.skipped + result.skipped,
            skipped_in_a_row=self.skipped_in_a_row + 1 if result.skipped else 0,
            train_s=self.train_s + seconds,
        )

    def is_better(self, score: Score) -> bool:
        """Whether a score has a lower loss than the best one (a tie keeps the earlier)."""
        if score.loss is None or not math.isfinite(score.loss):
            return False
        return self.best is None or self.best.loss is None or score.loss < self.best.loss

    def after_evaluation(self, score: Score, seconds: float) -> Progress:
        """After one more evaluation on the dev rows."""
        better = self.is_better(score)
        return self.with_(
            eval_s=self.eval_s + seconds,
            evaluations_since_best=0 if better else self.evaluations_since_best + 1,
            best_step=self.step if better else self.best_step,
            best=score if better else self.best,
        )
