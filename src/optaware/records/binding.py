"""What a plan's words mean as configuration: the contract between binding a plan, a person's edits and running it."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, JsonValue, StringConstraints, model_validator

from optaware.records._base import Record
from optaware.records.plan import Action
from optaware.records.run import ModelRef, Schedule

__all__ = [
    "Binding",
    "BindingArm",
    "BindingRun",
    "BoundBy",
    "BoundEntry",
    "BoundMetric",
    "NearComponent",
    "PlanSource",
    "Unbound",
]

Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class PlanSource(Record):
    """The plan that was bound: where it came from, and the hash of its entries as JSONL (content, not shape)."""

    source: str
    sha256: Sha256
    paper: str | None = None


class BindingArm(Record):
    """One setting of an entry.

    Attributes:
        label: What the plan calls it (`1e-3`, `LoRA`); "removed" for a removal.
        changes: Configuration value by field, all set at once; empty exactly for the baseline.
        is_baseline: It is what the baseline already does, so it is not run again.
    """

    label: Annotated[str, Field(min_length=1)]
    changes: dict[str, JsonValue] = Field(default_factory=dict)
    is_baseline: bool = False

    @model_validator(mode="after")
    def _changes_something(self) -> Self:
        if self.is_baseline == bool(self.changes):
            raise ValueError("an arm changes at least one field, and the baseline none")
        return self


class BoundBy(Record):
    """Who decided, and how: a deterministic rule, a chat model choosing from the listed components, or a person."""

    by: Literal["rule", "chat", "person"]
    how: str


class NearComponent(Record):
    """A component that an entry may have meant.

    Attributes:
        component: Its name: field of the method's config, or component of the manifest.
        words: What it is.
        why_not: What speaks against it.
    """

    component: str
    words: str
    why_not: str


class BoundMetric(Record):
    """A metric as the plan writes it, and the canonical name under which it is measured (None: nobody measures it)."""

    text: str
    name: str | None = None
    narrowed_by: str = ""


class Unbound(Record):
    """What could not be bound: the entry as a whole, or one of its values.

    Attributes:
        label: The value's text; None for the whole entry.
        why: Why it cannot run as it is.
        nearest: Components or values that come closest.
        needed: What would have to exist or be decided.
    """

    label: str | None = None
    why: str
    nearest: tuple[NearComponent, ...] = ()
    needed: str


class BoundEntry(Record):
    """One ablation of the plan and what it changes.

    Attributes:
        name: The entry's name, unique in the binding.
        part: The ablated part, in the plan's words.
        status: `bound`: all of it runs; `partly`: some of its values do; `unbound`: nothing of it does;
            `skipped`: a person decided to leave it out.
        arms: The settings to run, besides the plan's one baseline.
        why: Who bound it, and how.
        evidence: What was matched, or quotes from the paper.
        unbound: What of it could not be bound, with what would be needed.
        failures: Replies of chat models that were none of the listed choices, as they came.
        notes: What a reader should know, for instance that a value could mean two things.
    """

    name: Annotated[str, Field(min_length=1)]
    part: str
    action: Action
    status: Literal["bound", "partly", "unbound", "skipped"]
    metrics: tuple[BoundMetric, ...] = ()
    arms: tuple[BindingArm, ...] = ()
    why: BoundBy | None = None
    evidence: tuple[str, ...] = ()
    unbound: tuple[Unbound, ...] = ()
    failures: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _status_fits(self) -> Self:
        runs = [arm for arm in self.arms if not arm.is_baseline]
        faults = []
        if self.status in ("bound", "partly") and not runs:
            faults.append(f"it is {self.status}, but no arm changes anything")
        if self.status in ("bound", "partly") and self.why is None:
            faults.append(f"it is {self.status}, but `why` does not say who decided that (by: person, how: ...)")
        if self.status == "unbound" and runs:
            faults.append("it is unbound, but has arms that change something; say `bound` or `partly`")
        if self.status == "bound" and self.unbound:
            faults.append("it is bound as a whole, but `unbound` lists values; say `partly`, or remove the list")
        labels = [arm.label for arm in self.arms]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            faults.append(f"arms must have labels of their own, given twice: {twice}")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def runs(self) -> tuple[BindingArm, ...]:
        """The arms that differ from the baseline; none when the entry is skipped."""
        return () if self.status == "skipped" else tuple(arm for arm in self.arms if not arm.is_baseline)


class BindingRun(Record):
    """How the arms are run; what is None is taken from the command line."""

    model: ModelRef | None = None
    tasks: tuple[str, ...] = ()
    schedule: Schedule | None = None
    seeds: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _seeds_differ(self) -> Self:
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds must differ, given {list(self.seeds)}")
        return self


class Binding(Record):
    """A plan bound to the configuration of one method, or to the flags of a stranger's script (manifest).

    Attributes:
        version: Of this format.
        plan: Which plan.
        method: Name of a method of `records.methods`; exactly one of `method` and `manifest` is given.
        manifest: Path of a manifest, relative to the binding file.
        manifest_sha256: Its hash when it was bound.
        baseline: Configuration of the baseline: every field that differs from the method's default or is ablated.
        entries: In the plan's order, which is its ranking.
        contradictions: What does not go together, in words; found again whenever the file is read.
        run: How to run it.
    """

    version: Literal[1] = 1
    plan: PlanSource
    method: str | None = None
    manifest: str | None = None
    manifest_sha256: Sha256 | None = None
    baseline: dict[str, JsonValue] = Field(default_factory=dict)
    entries: tuple[BoundEntry, ...]
    contradictions: tuple[str, ...] = ()
    run: BindingRun = BindingRun()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        faults = []
        if (self.method is None) == (self.manifest is None):
            faults.append("exactly one of method and manifest is given")
        names = [entry.name for entry in self.entries]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            faults.append(f"entries must have names of their own, given twice: {twice}")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields that some arm changes, in order of first use."""
        return tuple(dict.fromkeys(field for entry in self.entries for arm in entry.runs for field in arm.changes))
