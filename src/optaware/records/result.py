"""What came out: predictions, scores, intervals, contrasts."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, field_validator

from optaware.records._base import Record
from optaware.records.example import DataSource

__all__ = ["Contrast", "Energy", "Interval", "Prediction", "RunResult", "Score"]


class Prediction(Record):
    """One example scored: mean log-probability of each answer option (fp32, nats per token)."""

    example_id: str
    label: int
    predicted: int
    scores: tuple[float, ...]

    @property
    def correct(self) -> bool:
        """Whether the predicted option is the labelled one."""
        return self.predicted == self.label


class Score(Record):
    """Accuracy (0 to 1) and mean loss over a set of examples."""

    accuracy: float
    loss: float | None
    """None where it is not finite: such a score is never the best of several."""
    n: int

    @field_validator("loss")
    @classmethod
    def _finite(cls, loss: float | None) -> float | None:
        return None if loss is None or not math.isfinite(loss) else loss


class Interval(Record):
    """An estimate with its confidence interval; `method` names how it was got."""

    estimate: float
    low: float
    high: float
    level: float = 0.95
    method: str


class Energy(Record):
    """What a device's own counter says that a run took, from loading the model to its last score.

    Of a GPU it is the board's (`nvml`), without the host; of a CPU the processor packages' (`rapl`). It is never
    estimated: where a counter is missing, or others used the device too, it is unknown and `why` says so.
    """

    joules: float | None = None
    source: Literal["nvml", "rapl"] | None = None
    why: str = ""
    """Why it is unknown."""


class RunResult(Record):
    """The outcome of one run, written once, before its DONE marker."""

    version: Literal[1] = 1
    run_id: str
    outcome: Literal["done", "diverged"]
    test: Score | None
    """Score on the test rows; None when the run was told not to look at them."""
    dev: Score | None
    """Score on the dev rows at the chosen step."""
    best_step: int
    steps: int
    """Updates made (fewer than asked for after an early stop)."""
    forwards: int
    skipped: int
    """Updates skipped because a loss was not finite."""
    train_s: float
    eval_s: float
    step_s_median: float | None
    peak_memory_bytes: int
    energy: Energy = Energy(why="recorded by a version that did not measure it")
    model_source: str
    model_sha256: str | None
    data_source: DataSource
    metrics: dict[str, float | None] = Field(default_factory=dict)
    """Further figures by canonical name (`f1`, `interference`, ...), for methods and plans that measure more."""
    detail: str = ""
    files: dict[str, int] = Field(default_factory=dict)
    """Bytes of the run's other files when it ended, by name: when one has lost some, the run is made again. Empty in
    runs of versions that did not keep it."""


class Contrast(Record):
    """A paired difference between two arms: `estimate = arm − baseline`, in accuracy (0 to 1)."""

    arm: str
    baseline: str
    model: str
    task: str
    method: str
    seeds: tuple[int, ...]
    n_examples: int
    difference: Interval
    p_value: float | None
    p_method: str
    p_corrected: float | None = None
    run_ids: tuple[str, ...]
