"""A study: models × tasks × data variants × methods × seeds, and the corpora that they need."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from optaware.records._base import Record
from optaware.records.chat import ChatModelRef
from optaware.records.example import Protocol
from optaware.records.grid import Grid, GridPoint, Selection, grid_points
from optaware.records.methods import Method
from optaware.records.run import ModelRef, Schedule

__all__ = ["CorpusSpec", "GateSpec", "MemoryFit", "MethodArm", "SearchSpec", "StudySpec", "VariantSpec"]


class GateSpec(Record):
    """When a rewrite is let through. Both judge questions must be answered `same`; blocking checks must pass."""

    min_length_ratio: float = 0.4
    max_length_ratio: float = 2.5
    accept_at: float = 0.9
    """Rewriter accuracy from which the corpus counts as accepted (OAT-Rephrase: 90 %); below it, the report says so."""


class SearchSpec(Record):
    """Make several rewrites of each row and keep, of those that pass the gate, the one that a measurement prefers.

    The measurement sees training rows only. `first` measures nothing and keeps the first that passes: the control that
    costs as many calls.
    """

    candidates: Annotated[int, Field(ge=2, le=64)] = 4
    """Rewrites of each row."""
    prefer: Literal["gradient-noise", "sharpness", "loss", "perplexity", "first"] = "gradient-noise"
    """What is to be low: the variance of the projected gradient over directions, the mean second difference of the
    loss along them, the loss, the perplexity of the row's text."""
    model: ModelRef | None = None
    """The model to be trained, which measures; None only with `first`."""
    directions: Annotated[int, Field(ge=2)] = 8
    """Probes; every text is measured along the same ones."""
    eps: Annotated[float, Field(gt=0)] = 1e-3
    """Perturbation scale."""
    seed: int = 0
    prompt: str = "default"
    """Which of the task's prompt styles the model is shown."""
    max_length: Annotated[int, Field(ge=8)] = 1024

    @model_validator(mode="after")
    def _model_given(self) -> SearchSpec:
        if (self.model is None) != (self.prefer == "first"):
            raise ValueError("a model is given exactly when `prefer` is not `first`")
        return self

    @property
    def words(self) -> str:
        """What is done, in one line."""
        if self.model is None:
            return f"the first of {self.candidates} rewrites that passes"
        name = self.model.name.rstrip("/").rsplit("/", 1)[-1]
        return f"of {self.candidates} rewrites the one with the lowest {self.prefer} under {name}"


class VariantSpec(Record):
    """One version of the training rows: the original ones, or rewritten with a named template."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    template: str | None = None
    """Rewriter template: a built-in name (`oat`, `paraphrase`) or the path of a Jinja file; None: the original rows."""
    retries: Annotated[int, Field(ge=0, le=16)] = 0
    """Further tries for a row whose rewrite was rejected, each told why."""
    search: SearchSpec | None = None
    """Several rewrites of each row, of which one is chosen; None: one, as in the paper."""
    rows: str | None = None
    """Rewritten rows that are already there: a JSONL file of the task's own fields, with `{task}` in its name where the
    study has several tasks. They are taken as they are, without rewriter, judge or gate."""

    @property
    def is_original(self) -> bool:
        """Whether these are the rows as they come."""
        return self.template is None and self.rows is None


class CorpusSpec(Record):
    """Everything that decides a rewritten corpus."""

    version: Literal[1] = 1
    task: str
    task_sha256: str | None = None
    protocol: Protocol
    variant: str
    rewriter: ChatModelRef
    judge: ChatModelRef
    rewriter_prompt_id: str
    judge_prompt_ids: dict[str, str]
    template: str = "oat"
    """Where the rewriter's prompt comes from: a built-in name or the path of a Jinja file. `rewriter_prompt_id` is its
    content, and the only thing that counts."""
    gate: GateSpec = GateSpec()
    rows_sha256: str
    """Hash over the ids and fields of the training rows."""
    retries: Annotated[int, Field(ge=0, le=16)] = 0
    """Further tries for a row whose rewrite was rejected, each told why."""
    retry_prompt_id: str | None = None
    """Content hash of how the rewriter is told; None without retries."""
    search: SearchSpec | None = None
    """Several rewrites of each row, of which one is chosen; None: one."""
    held_out_sha256: str | None = None
    """Hash over the spans of the dev and test rows, which rewrites may not come near; None: not looked at."""
    judge_file: str | None = None
    """Path of a calibrated judge (`optaware data calibrate`); None: the packaged one. `judge_prompt_ids` hold its
    content."""
    given: str | None = None
    """A JSONL file of rewritten rows that stands in for rewriter, judge and gate; None: they are made."""
    given_sha256: str | None = None
    """Its content, and the only thing about it that counts."""

    @property
    def slug(self) -> str:
        """A readable name for the corpus's folder."""
        task = self.task.rstrip("/").rsplit("/", 1)[-1].removesuffix(".yaml")
        return "".join(char if char.isalnum() or char in "-_." else "-" for char in f"{task}-{self.variant}")[:60]


class MethodArm(Record):
    """A training method as a study uses it: config, schedule and the variants it is trained on (all when None)."""

    label: str | None = None
    config: Method
    schedule: Schedule | None = None
    variants: tuple[str, ...] | None = None
    grid: Grid = Field(default_factory=dict)
    """Values to try by field; the point used is chosen on dev rows (`StudySpec.selection`). Empty: `config` as it
    is."""

    @property
    def display(self) -> str:
        """The arm's name in tables."""
        return self.label or self.config.name

    def points(self, schedule: Schedule) -> tuple[GridPoint, ...]:
        """The settings that the arm is tried with, one when it has no grid; `schedule` is used unless it has its
        own."""
        return grid_points(self.config, self.schedule or schedule, self.grid)


class MemoryFit(Record):
    """What a run may hold, and what is done where more would be needed.

    Memory is estimated beforehand (weights, gradients, optimizer states, activations), so the answer is in the run's
    spec and does not depend on the machine that happens to run it.
    """

    limit_gb: Annotated[float, Field(gt=0)]
    """Memory per run, in units of 10⁹ bytes."""
    when_short: Literal["split", "halve", "refuse"] = "split"
    """`split`: the batch in parts, the mathematics of the whole; `halve`: halve the batch and double the steps, so that
    as many tokens are processed; `refuse`: say so and begin nothing."""
    leave_out: bool = False
    """Leave out, and name in the report, what does not fit even row by row, instead of refusing the study."""


class StudySpec(Record):
    """What a study file says."""

    version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    description: str = ""
    models: Annotated[tuple[ModelRef, ...], Field(min_length=1)]
    tasks: Annotated[tuple[str, ...], Field(min_length=1)]
    protocol: Protocol = Protocol()
    prompt: str = "default"
    variants: Annotated[tuple[VariantSpec, ...], Field(min_length=1)] = (VariantSpec(name="original"),)
    baseline: str = "original"
    methods: Annotated[tuple[MethodArm, ...], Field(min_length=1)]
    schedule: Schedule = Schedule()
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2)
    zero_shot: bool = True
    rewriter: ChatModelRef | None = None
    judge: ChatModelRef | None = None
    judge_file: str | None = None
    """A calibrated judge (`judge.json` of `optaware data calibrate`), with `{task}` in its path where the study has
    several tasks; None: the packaged judge."""
    gate: GateSpec = GateSpec()
    threads: Annotated[int, Field(ge=1)] = 1
    device: str = "auto"
    deterministic: bool = False
    """Kernels that give the same bits each time, where the device has faster ones that do not (GPUs)."""
    keep_weights: bool = False
    workers: Annotated[int, Field(ge=1)] = 1
    """Runs at once, each in a process of its own."""
    selection: Selection = Selection()
    """How a point of an arm's grid is chosen."""
    memory: MemoryFit | None = None
    """What a run may hold; None: whatever it takes."""
    budget_gpu_hours: Annotated[float | None, Field(gt=0)] = None
    """Refuse to begin when the estimate of what is left is above this."""
    scale: str | None = None
    """Which of the file's `scales` was put in."""

    @model_validator(mode="after")
    def _consistent(self) -> StudySpec:
        names = [variant.name for variant in self.variants]
        faults = []
        for kind, items in (
            ("variant names", names),
            ("tasks", list(self.tasks)),
            ("seeds", list(self.seeds)),
            ("method labels", [arm.display for arm in self.methods]),
            ("models", [(model.name, model.revision, model.dtype) for model in self.models]),
        ):
            if len(set(items)) != len(items):
                faults.append(f"{kind} must be unique, given {items}")
        if self.baseline not in names:
            faults.append(f"baseline {self.baseline!r} is not among the variants {names}")
        for arm in self.methods:
            if unknown := sorted(set(arm.variants or ()) - set(names)):
                faults.append(f"method {arm.display!r} names unknown variants {unknown}")
        for arm in self.methods:
            try:
                arm.points(self.schedule)
            except ValueError as error:
                faults.append(f"method {arm.display!r}: {_first_lines(error)}")
        if any(variant.template and variant.rows for variant in self.variants):
            faults.append("a variant has a template or rows of its own, not both")
        if any(variant.template for variant in self.variants) and self.rewriter is None:
            faults.append("a variant has a template, so a rewriter is needed")
        if self.judge_file is not None and len(self.tasks) > 1 and "{task}" not in self.judge_file:
            faults.append("a judge is made for one task, so judge_file needs {task} in its path")
        if self.protocol.name == "all":
            faults.append("protocol all has no dev and test rows of its own; a study needs oat, mezo or free")
        if any((variant.name == "original") != variant.is_original for variant in self.variants):
            faults.append("exactly the variant named 'original' goes without a template and without rows of its own")
        if faults:
            raise ValueError("; ".join(faults))
        return self


def _first_lines(error: ValueError) -> str:
    if isinstance(error, ValidationError):
        return "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
    return str(error)
