"""Running a plan: what is asked for, which runs it takes, and one run of a stranger's script."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, model_validator

from optaware.records._base import Record
from optaware.records.manifest import ManifestMetric, ManifestOption
from optaware.records.run import ModelRef, RunData, Schedule

__all__ = [
    "AblationArm",
    "ArmChange",
    "ArmSetting",
    "AskedMetric",
    "PlanRunSpec",
    "PlannedAblation",
    "PlannedRuns",
    "ScriptResult",
    "ScriptSpec",
]


class ArmSetting(Record):
    """Further values that some arms need, because theirs is not the baseline's scale (the learning rate of LoRA).

    Attributes:
        when: The arms that it is for: those that change these fields to these values.
        set: What they get besides; `schedule.steps` and the like reach beyond the method's config.
        why: Where the values come from; the report says it.
    """

    when: Annotated[dict[str, JsonValue], Field(min_length=1)]
    set: Annotated[dict[str, JsonValue], Field(min_length=1)]
    why: Annotated[str, Field(min_length=1)]


class PlanRunSpec(Record):
    """How a plan is run: what a study file of `plan run` says, with the command line's options put in.

    Attributes:
        name: Of the results' folder and report.
        plan: Path of the plan, relative to the study file.
        binding: Path of a binding, relative to the study file; None: the plan is bound by rules.
        method: Name of a method of `records.methods`.
        manifest: Path of a script's manifest, relative to the study file; instead of a method.
        command: The script's command; instead of the manifest's.
        model: Model of all arms.
        data: Rows of all arms.
        baseline: Configuration of the baseline that differs from the method's default.
        schedule: How long the baseline trains, and on what batches.
        seeds: Seeds of every arm; arms are paired by them.
        noise_seeds: Further seeds of the baseline, for the noise floor; None: as many as `seeds`, none of them in it.
        repeat: Run the baseline's first seed a second time, to see whether the same run gives the same result.
        zero_shot: Score the untrained model too.
        budget: What all arms are given the same of: forward passes, or steps.
        settings: Values that some arms get besides their own change.
        primary: The metric that verdicts are about.
        better: Which way of it is better.
        smallest_effect: Smallest difference in it that would matter to the reader, in the metric's own unit.
        target_share: The convergence target: this share of the way from the untrained model's dev loss to the
            baseline's mean best dev loss.
        threads: Torch threads per run.
        device: Device of the runs.
        deterministic: Kernels that give the same bits each time, where the device has faster ones that do not.
        workers: Runs at once.
        timeout_s: Seconds after which a run is stopped and recorded as failed.
        scales: Fields to put in place of the ones above, by scale (`smoke`, `small`, `paper`).
    """

    version: Literal[1] = 1
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,60}$")]
    description: str = ""
    plan: str | None = None
    binding: str | None = None
    method: str | None = None
    manifest: str | None = None
    command: tuple[str, ...] = ()
    model: ModelRef | None = None
    data: RunData | None = None
    baseline: dict[str, JsonValue] = Field(default_factory=dict)
    schedule: Schedule | None = None
    seeds: Annotated[tuple[int, ...], Field(min_length=1)] = (0, 1, 2)
    noise_seeds: tuple[int, ...] | None = None
    repeat: bool = True
    zero_shot: bool = True
    budget: Literal["forwards", "steps"] = "forwards"
    settings: tuple[ArmSetting, ...] = ()
    primary: str = "accuracy"
    better: Literal["higher", "lower"] = "higher"
    smallest_effect: Annotated[float | None, Field(gt=0)] = 0.02
    target_share: Annotated[float, Field(gt=0, le=1)] = 0.9
    threads: Annotated[int, Field(ge=1)] = 1
    device: str = "auto"
    deterministic: bool = False
    workers: Annotated[int, Field(ge=1)] = 1
    timeout_s: Annotated[float | None, Field(gt=0)] = None
    scales: dict[str, dict[str, JsonValue]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        faults = []
        if (self.method is None) == (self.manifest is None):
            faults.append("exactly one of method and manifest is given")
        if self.command and self.manifest is None:
            faults.append("a command needs a manifest that says what can be changed about it")
        seeds = (*self.seeds, *(self.noise_seeds or ()))
        if len(set(seeds)) != len(seeds):
            faults.append(f"seeds and noise_seeds must all differ, given {list(seeds)}")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def noise(self) -> tuple[int, ...]:
        """The baseline's further seeds."""
        if self.noise_seeds is not None:
            return self.noise_seeds
        first = max(self.seeds) + 1
        return tuple(range(first, first + len(self.seeds)))


class ArmChange(Record):
    """One value in which an arm differs from the baseline, and why it does."""

    field: str
    before: JsonValue
    after: JsonValue
    why: str


class AblationArm(Record):
    """One arm and its runs.

    Attributes:
        key: Unique name; `baseline` for the baseline.
        label: What the plan calls it.
        changes: All in which it differs from the baseline.
        is_baseline: It is the baseline itself.
        runs: Run id by seed. An arm whose configuration another one has too shares its runs.
        steps: Updates asked for.
        forwards: Forward passes of a batch that it is given; None when the method's cost is not known.
    """

    key: str
    label: str
    changes: tuple[ArmChange, ...] = ()
    is_baseline: bool = False
    runs: dict[int, str] = Field(default_factory=dict)
    steps: int | None = None
    forwards: int | None = None


class AskedMetric(Record):
    """A metric as the plan writes it, and its canonical name (None: unknown)."""

    text: str
    name: str | None


class PlannedAblation(Record):
    """One ablation of the plan with its arms; what could not be run is named in `left_out` (what, why)."""

    name: str
    part: str
    action: str
    metrics: tuple[AskedMetric, ...] = ()
    arms: tuple[AblationArm, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


class PlannedRuns(Record):
    """All that a plan's report needs to know besides the runs themselves.

    Attributes:
        spec: How the plan is run.
        plan_sha256: Of the plan's entries.
        method: Name of the method, or of the script's manifest.
        baseline: The baseline's arm.
        noise: The baseline again, with other seeds.
        repeat: Run id of the baseline's first seed, run a second time in a folder of its own; None: not asked for.
        zero_shot: Run id of the untrained model.
        ablations: In the plan's order, which is its ranking.
        configuration: What all arms have, unless they change it: name and value in words.
        units: Unit of metrics that are not optaware's own.
        better: Which way of such a metric is better.
    """

    version: Literal[1] = 1
    spec: PlanRunSpec
    plan_sha256: str
    method: str
    baseline: AblationArm
    noise: AblationArm | None = None
    repeat: str | None = None
    zero_shot: str | None = None
    ablations: tuple[PlannedAblation, ...]
    configuration: tuple[tuple[str, str], ...] = ()
    units: dict[str, str] = Field(default_factory=dict)
    better: dict[str, Literal["higher", "lower"]] = Field(default_factory=dict)


class ScriptSpec(Record):
    """One run of a stranger's script: everything that decides its outcome, as far as can be seen from outside.

    Attributes:
        name: The manifest's name.
        arm: What to call the arm.
        command: Program and arguments, each one word; no shell reads them.
        out: How the folder of the run reaches the script.
        out_at: Where in `command` the words that name that folder go.
        variables: Environment variables that are set.
        metrics: What it measures and where it writes it.
        seed: The seed that the command hands over.
        cwd: Folder that it runs in.
        files: SHA-256 of the files that the command names, so that an edited script is another run.
        timeout_s: Seconds after which it is ended and recorded as failed.
    """

    version: Literal[1] = 1
    name: str
    arm: str
    command: Annotated[tuple[str, ...], Field(min_length=1)]
    out: ManifestOption | None = None
    out_at: int = 0
    variables: dict[str, str] = Field(default_factory=dict)
    metrics: dict[str, ManifestMetric]
    seed: int
    cwd: str
    files: dict[str, str] = Field(default_factory=dict)
    timeout_s: float | None = None

    @property
    def slug(self) -> str:
        """A readable name for the run's folder."""
        text = f"{self.name}-{self.arm}-s{self.seed}"
        return "".join(char if char.isalnum() or char in "-_." else "-" for char in text)[:80]


class ScriptResult(Record):
    """What a script's run measured, written once before its DONE marker.

    Attributes:
        metrics: Value by canonical name.
        wall_s: Seconds from start to end.
        cpu_s: Processor seconds, of it and of its children that ended.
        peak_memory_bytes: Largest resident size of its process.
    """

    version: Literal[1] = 1
    run_id: str
    metrics: dict[str, float]
    wall_s: float
    cpu_s: float
    peak_memory_bytes: int
