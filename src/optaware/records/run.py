"""One training run: what is asked for (RunSpec) and what happened (steps, evaluations, result)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from optaware.errors import InputError
from optaware.records._base import Record
from optaware.records.episodes import Episodes
from optaware.records.example import Protocol
from optaware.records.fewshot import FewShot
from optaware.records.methods import Method
from optaware.records.mixture import TaskMixture

__all__ = ["DataRef", "EvalRecord", "ModelRef", "RunData", "RunSpec", "RunStatus", "Schedule", "StepRecord"]


class ModelRef(Record):
    """A causal language model: local path, hub name or asset name, and the precision of its weights."""

    name: str
    revision: str | None = None
    dtype: Literal["fp32", "bf16", "fp16"] = "bf16"


class DataRef(Record):
    """The rows of a run: a task, its split protocol, and which version of the training rows."""

    kind: Literal["task"] = "task"
    task: str
    """Name of a built-in task, or path of a task file."""
    task_sha256: str | None = None
    """Content hash of the task (name and version, or task file and data), so that editing it changes the identity."""
    protocol: Protocol = Protocol()
    variant: str = "original"
    corpus_id: str | None = None
    """Id of the rewritten corpus that replaces the training rows; None for the original ones."""
    prompt: str = "default"
    """Which of the task's prompt styles is used."""

    @model_validator(mode="after")
    def _corpus_matches_variant(self) -> DataRef:
        if (self.variant == "original") != (self.corpus_id is None):
            raise ValueError("corpus_id is given exactly when variant is not 'original'")
        return self

    @property
    def title(self) -> str:
        """A short name: the task and the variant."""
        return f"{self.task.rstrip('/').rsplit('/', 1)[-1].removesuffix('.yaml')}-{self.variant}"


def _kind(data: Any) -> Any:
    return data.get("kind", "task") if isinstance(data, dict) else getattr(data, "kind", None)


RunData = Annotated[
    Annotated[DataRef, Tag("task")]
    | Annotated[Episodes, Tag("episodes")]
    | Annotated[TaskMixture, Tag("mixture")]
    | Annotated[FewShot, Tag("few-shot")],
    Discriminator(_kind),
]
"""What a run learns from; `kind` says which form (none: `task`). A method with data of its own kind adds its record
here; each has a `title`, which becomes part of the name of the run's folder."""


class Schedule(Record):
    """How long and on what batches a run trains."""

    steps: Annotated[int, Field(ge=0)] = 20_000
    batch_size: Annotated[int, Field(ge=1)] = 16
    """Examples per update, over all accumulation parts."""
    accumulation: Annotated[int, Field(ge=1)] = 1
    """Parts that a batch is split into; the mathematics is that of the whole batch."""
    eval_every: Annotated[int, Field(ge=1)] = 500
    """Steps between evaluations on the dev rows."""
    patience: Annotated[int | None, Field(ge=1)] = None
    """Stop after this many evaluations without a lower dev loss; None: never."""
    max_length: Annotated[int, Field(ge=8)] = 1024
    """Tokens per row; longer prompts are cut from the left."""

    @model_validator(mode="after")
    def _parts_fit(self) -> Schedule:
        if self.batch_size % self.accumulation:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of accumulation {self.accumulation}")
        return self


class RunSpec(Record):
    """Everything that decides the outcome of one run."""

    version: Literal[1] = 1
    model: ModelRef
    data: RunData
    method: Method
    schedule: Schedule = Schedule()
    seed: int = 0
    threads: Annotated[int, Field(ge=1)] = 1
    """Torch threads on CPU; part of the identity because sums over threads round differently."""
    device: str = "auto"
    deterministic: bool = False
    """Kernels that give the same bits each time, where the device has faster ones that do not (GPUs)."""
    keep_weights: bool = True
    score_test: bool = True
    """False: the test rows are never scored, as in runs that a grid point is chosen by."""

    @model_validator(mode="after")
    def _method_takes_the_data(self) -> RunSpec:
        if self.data.kind not in self.method.data_kinds:
            wanted = " or ".join(self.method.data_kinds)
            raise ValueError(f"{self.method.name} learns from data of kind {wanted}, not of kind {self.data.kind}")
        return self

    @property
    def rows(self) -> DataRef:
        """The data, for stages that work on the rows of one task.

        Raises:
            InputError: The run learns from data of another kind.
        """
        if isinstance(self.data, DataRef):
            return self.data
        raise InputError.of(
            "data-kind",
            f"{self.method.name} on data of kind {self.data.kind}",
            "this works on the rows of one task only",
            "Take a run whose data is of kind task.",
        )

    @property
    def corpus_id(self) -> str | None:
        """Id of the corpus that the run needs; None when it needs none."""
        return self.data.corpus_id if isinstance(self.data, DataRef) else None

    @property
    def slug(self) -> str:
        """A readable name for the run's folder."""
        model = self.model.name.rstrip("/").rsplit("/", 1)[-1]
        text = f"{model}-{self.data.title}-{self.method.name}-s{self.seed}"
        return "".join(char if char.isalnum() or char in "-_." else "-" for char in text)[:80]


class RunStatus(Record):
    """Where a run stands; rewritten whenever that changes."""

    state: Literal["running", "done", "failed", "stopped", "pruned"]
    """`stopped`: it goes on with the same command; `pruned`: a study's grid has no further use for it."""
    step: int = 0
    steps: int = 0
    detail: str = ""
    pid: int | None = None
    updated: str = ""


class StepRecord(Record):
    """One update. `loss` is the mean training loss seen by the step (fp32); None when it was not finite."""

    step: int
    loss: float | None
    coefficients: tuple[float | None, ...] = ()
    """Projected gradients g, one per query (forward-only methods)."""
    grad_norm: float | None = None
    lr: float
    examples: int
    forwards: int
    """Forward passes of a whole batch so far (a backward pass counts as two more)."""
    skipped: bool = False
    step_s: float
    metrics: dict[str, float | None] = Field(default_factory=dict)
    """Further figures of the update by canonical name, for methods that log more."""


class EvalRecord(Record):
    """One evaluation on the dev rows."""

    step: int
    split: str
    loss: float | None
    accuracy: float
    n: int
    best: bool = False
    forwards: int = 0
    wall_s: float
    metrics: dict[str, float | None] = Field(default_factory=dict)
