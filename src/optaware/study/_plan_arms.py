from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, get_args

from optaware.errors import InputError, ProblemList
from optaware.records import (
    Binding,
    BindingArm,
    BoundEntry,
    Method,
    MethodConfig,
    RunSpec,
    ZeroShot,
    parse_record,
    short_id,
)
from optaware.records.plan_run import AblationArm, ArmChange, AskedMetric, PlannedAblation, PlannedRuns, PlanRunSpec
from optaware.study._plan_cost import equal_steps, forwards_of_run, forwards_per_step

__all__ = ["PlannedRun", "arms_of_plan"]

_SECTIONS = ("schedule", "data", "model")


@dataclass(frozen=True)
class PlannedRun:
    """One run of a plan that has to exist: a run spec, and whether it goes into a folder of its own."""

    spec: RunSpec
    repeat: bool = False


@dataclass
class _Built:
    """Arms by their configuration, and the runs that they need, in the order in which they are to be run."""

    runs: dict[str, RunSpec] = field(default_factory=dict)

    def add(self, spec: RunSpec) -> str:
        """Note a run; returns its id."""
        key = short_id(spec)
        self.runs.setdefault(key, spec)
        return key


def arms_of_plan(spec: PlanRunSpec, binding: Binding, task_sha256: str | None) -> tuple[PlannedRuns, list[PlannedRun]]:
    """Turn a binding into arms and runs: the baseline first, then one factor at a time, each on the same seeds.

    An arm that comes out as the baseline, or as an earlier arm, shares its runs. With `budget: forwards` an arm's steps
    are chosen so that it spends the baseline's forward passes.

    Args:
        spec: How the plan is run; model, data and schedule are given.
        binding: What the plan means.
        task_sha256: Content hash of the task.

    Raises:
        InputError: Contradictions in the binding, or arms whose values the method does not take; all at once.
    """
    problems = ProblemList(spec.binding or spec.plan or spec.name)
    for text in binding.contradictions:
        problems.add("binding-contradiction", text, "it cannot be run as it stands", "Edit the binding.")
    base = _base(spec, binding, task_sha256, problems)
    problems.raise_if_any()
    assert base is not None
    built = _Built()
    baseline = _arm("baseline", "baseline", base, base, spec.seeds, built, (), True)
    noise = _arm("noise", "baseline, other seeds", base, base, spec.noise, built, (), True) if spec.noise else None
    zero_shot = _zero_shot(spec, base, built)
    ablations = [
        _ablation(rank, entry, spec, base, baseline, built, problems)
        for rank, entry in enumerate(binding.entries, start=1)
    ]
    problems.raise_if_any()
    runs = [PlannedRun(run) for run in built.runs.values()]
    repeat = None
    if spec.repeat:
        first = base.model_copy(update={"seed": spec.seeds[0]})
        repeat = short_id(first)
        runs.insert(len(spec.seeds), PlannedRun(first, repeat=True))
    planned = PlannedRuns(
        spec=spec,
        plan_sha256=binding.plan.sha256,
        method=base.method.name,
        baseline=baseline,
        noise=noise,
        repeat=repeat,
        zero_shot=zero_shot,
        ablations=tuple(ablations),
        configuration=_configuration(base),
    )
    return planned, runs


def method_class(name: str) -> type[MethodConfig]:
    """The config class of a method by its name.

    Raises:
        InputError: There is no such method.
    """
    configs: dict[str, type[MethodConfig]] = {
        config.model_fields["name"].default: config for config in get_args(get_args(Method)[0])
    }
    if name not in configs:
        known = ", ".join(sorted(configs))
        raise InputError.of("method-unknown", name, "there is no method of this name", f"Choose one of: {known}.")
    return configs[name]


def _base(spec: PlanRunSpec, binding: Binding, task_sha256: str | None, problems: ProblemList) -> RunSpec | None:
    if spec.model is None or spec.data is None or spec.schedule is None:
        lacking = [name for name in ("model", "data", "schedule") if getattr(spec, name) is None]
        why = f"the method {spec.method} has no default for it"
        problems.add("run-incomplete", ", ".join(lacking), why, "Name them in a study file, or as options.")
        return None
    for name in binding.fields:
        told, bound = spec.baseline.get(name), binding.baseline.get(name)
        if told is not None and bound is not None and told != bound:
            why = f"the binding was made for a baseline of {bound!r}, so its arms would mean something else"
            problems.add("baseline-conflict", f"{name} = {told!r}", why, "Bind the plan again, or edit one of the two.")
    data = spec.data.to_json()
    if "task_sha256" in data and task_sha256 is not None:
        data["task_sha256"] = task_sha256
    method = {"name": spec.method, **binding.baseline, **spec.baseline}
    with problems.collecting():
        method_class(str(spec.method))
        return parse_record(
            RunSpec,
            {
                "model": spec.model.to_json(),
                "data": data,
                "method": method,
                "schedule": spec.schedule.to_json(),
                "seed": spec.seeds[0],
                "threads": spec.threads,
                "device": spec.device,
                "deterministic": spec.deterministic,
                "keep_weights": False,
            },
            "baseline",
        )
    return None


def _ablation(
    rank: int,
    entry: BoundEntry,
    spec: PlanRunSpec,
    base: RunSpec,
    baseline: AblationArm,
    built: _Built,
    problems: ProblemList,
) -> PlannedAblation:
    arms: list[AblationArm] = []
    left_out = [(part.label or "the whole ablation", f"{part.why} {part.needed}".strip()) for part in entry.unbound]
    if entry.status == "skipped":
        left_out.append(("the whole ablation", entry.why.how if entry.why else "a person left it out"))
    for number, arm in enumerate(() if entry.status == "skipped" else entry.arms, start=1):
        key = f"{rank}.{number}"
        if arm.is_baseline:
            arms.append(baseline.model_copy(update={"key": key, "label": arm.label}))
            continue
        with problems.collecting():
            own, changes = _changed(f"{entry.name}: {arm.label}", arm, spec, base)
            arms.append(_arm(key, arm.label, own, base, spec.seeds, built, changes, False))
    return PlannedAblation(
        name=entry.name,
        part=entry.part,
        action=entry.action,
        metrics=tuple(AskedMetric(text=metric.text, name=metric.name) for metric in entry.metrics),
        arms=tuple(arms),
        left_out=tuple(left_out),
        notes=entry.notes,
    )


def _changed(where: str, arm: BindingArm, spec: PlanRunSpec, base: RunSpec) -> tuple[RunSpec, tuple[ArmChange, ...]]:
    """The arm's run spec, and all in which it differs from the baseline."""
    wanted: dict[str, tuple[Any, str]] = {name: (value, "ablated") for name, value in arm.changes.items()}
    for setting in spec.settings:
        if all(name in arm.changes and arm.changes[name] == value for name, value in setting.when.items()):
            for name, value in setting.set.items():
                wanted.setdefault(name, (value, setting.why))
    data = base.to_json()
    for name, (value, _) in wanted.items():
        _put(data, name, value, where)
    own = parse_record(RunSpec, data, where)
    if spec.budget == "forwards":
        told = {name for name in ("steps", "eval_every") if f"schedule.{name}" in wanted}
        steps, every = equal_steps(
            base.schedule.steps,
            base.schedule.eval_every,
            forwards_per_step(base.method),
            forwards_per_step(own.method),
        )
        for name, value in (("steps", steps), ("eval_every", every)):
            if name not in told and value != getattr(own.schedule, name):
                wanted[f"schedule.{name}"] = (value, "as many forward passes as the baseline")
                data["schedule"][name] = value
        own = parse_record(RunSpec, data, where)
    before = base.to_json()
    changes = [
        ArmChange(field=name, before=_get(before, name), after=value, why=why)
        for name, (value, why) in wanted.items()
        if _get(before, name) != value
    ]
    return own, tuple(changes)


def _arm(
    key: str,
    label: str,
    own: RunSpec,
    base: RunSpec,
    seeds: tuple[int, ...],
    built: _Built,
    changes: tuple[ArmChange, ...],
    is_baseline: bool,
) -> AblationArm:
    return AblationArm(
        key=key,
        label=label,
        changes=changes,
        is_baseline=is_baseline or own == base,
        runs={seed: built.add(own.model_copy(update={"seed": seed})) for seed in seeds},
        steps=own.schedule.steps,
        forwards=forwards_of_run(own),
    )


def _zero_shot(spec: PlanRunSpec, base: RunSpec, built: _Built) -> str | None:
    if not spec.zero_shot or base.data.kind != "task":
        return None
    schedule = base.schedule.model_copy(update={"steps": 0})
    return built.add(base.model_copy(update={"method": ZeroShot(), "schedule": schedule, "seed": 0}))


def _put(data: dict[str, Any], name: str, value: Any, where: str) -> None:
    section, dot, rest = name.partition(".")
    if dot and section in _SECTIONS:
        data[section][rest] = value
    elif dot:
        why = "a value is set in the method's config, or in schedule, data or model"
        raise InputError.of(
            "setting-unknown", name, why, "Name a field of the method, or schedule.steps and the like.", where
        )
    else:
        data["method"][name] = value


def _get(data: Mapping[str, Any], name: str) -> Any:
    section, dot, rest = name.partition(".")
    return data[section].get(rest) if dot else data["method"].get(name)


def _configuration(base: RunSpec) -> tuple[tuple[str, str], ...]:
    """What all arms share, in words: whatever differs from the defaults of its record, and what a reader asks first."""
    default = method_class(base.method.name)().to_json() if _has_defaults(base.method) else {}
    method = [(key, str(value)) for key, value in base.method.to_json().items() if default.get(key) != value]
    schedule = [(key, str(value)) for key, value in base.schedule.to_json().items() if value is not None]
    data = [
        (key, str(value))
        for key, value in base.data.to_json().items()
        if value is not None and not key.endswith("sha256") and key != "kind"
    ]
    model = [("model", f"{base.model.name.rstrip('/').rsplit('/', 1)[-1]}, {base.model.dtype}")]
    return (*model, *data, ("method", base.method.name), *method, *schedule)


def _has_defaults(method: Any) -> bool:
    return not any(field.is_required() for field in type(method).model_fields.values())
