from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from optaware._io import file_sha256
from optaware.errors import InputError, ProblemList
from optaware.records import Binding, BoundEntry, Manifest, ManifestComponent, short_id
from optaware.records.plan_run import AblationArm, ArmChange, AskedMetric, PlannedAblation, PlannedRuns, ScriptSpec
from optaware.study._plan_file import PlanRequest

__all__ = ["script_arms"]

_FLAGS = "{flags}"
_HASHED_BYTES = 64 << 20
_SCRIPTS = frozenset([".py", ".sh", ".R", ".jl"])


@dataclass
class _Builder:
    request: PlanRequest
    manifest: Manifest
    command: tuple[str, ...]
    cwd: Path
    baseline: Mapping[str, Any]
    runs: dict[str, ScriptSpec] = field(default_factory=dict)

    def arm(
        self, key: str, label: str, changes: Mapping[str, Any], seeds: Sequence[int], why: tuple[ArmChange, ...]
    ) -> AblationArm:
        """An arm: one run of the script per seed, with the baseline's values and the arm's own in place of some."""
        values = {**self.baseline, **changes}
        runs = {}
        for seed in seeds:
            spec = self._spec(label, values, seed)
            self.runs.setdefault(short_id(spec), spec)
            runs[seed] = short_id(spec)
        return AblationArm(key=key, label=label, changes=why, runs=runs)

    def _spec(self, label: str, values: Mapping[str, Any], seed: int) -> ScriptSpec:
        flags: list[str] = []
        variables: dict[str, str] = {}
        for name, value in values.items():
            component = self.manifest.components[name]
            flags += component.arguments_for(value)
            variables |= component.environment_for(value)
        if self.manifest.seed is not None:
            flags += self.manifest.seed.arguments(str(seed))
            if self.manifest.seed.env:
                variables[self.manifest.seed.env] = str(seed)
        at = self.command.index(_FLAGS) if _FLAGS in self.command else len(self.command)
        before, after = self.command[:at], self.command[at + 1 :]
        return ScriptSpec(
            name=self.manifest.name,
            arm=label,
            command=(*before, *flags, *after),
            out=self.manifest.out,
            out_at=len(before) + len(flags),
            variables=variables,
            metrics=self.manifest.metrics,
            seed=seed,
            cwd=str(self.cwd),
            files=_hashes(before + after, self.cwd),
            timeout_s=self.request.spec.timeout_s or self.manifest.timeout_s,
        )


def script_arms(
    request: PlanRequest, manifest: Manifest, binding: Binding
) -> tuple[PlannedRuns, list[tuple[ScriptSpec, bool]]]:
    """Turn a binding to a script's manifest into arms and runs, the baseline first.

    Values reach the script as single words of its command line or as environment variables; no shell is involved, and
    every value must be one that its component may have.

    Returns:
        The plan for the report, and the runs with whether each is the baseline's repetition.

    Raises:
        InputError: No command, a program that is not there, components or values that the manifest does not have, an
            unknown primary metric; all at once.
    """
    spec, where = request.spec, str(request.manifest_path)
    problems = ProblemList(where)
    command = spec.command or manifest.command
    cwd = (Path() if spec.command else Path(where).parent).resolve()
    _check_command(command, cwd, problems)
    if spec.primary not in manifest.metrics:
        known = ", ".join(manifest.metrics)
        problems.add("primary-unknown", spec.primary, f"the manifest measures {known}", "Give --primary one of them.")
    if manifest.seed is None:
        why = "the manifest has no seed, so runs of different seeds would be the same run"
        problems.add("seed-missing", manifest.name, why, "Say under `seed` how the script is given its seed.")
    own = {name: part.baseline for name, part in manifest.components.items() if part.baseline is not None}
    baseline = {**own, **binding.baseline, **spec.baseline}
    _check_values("baseline", baseline, manifest, problems)
    for entry in binding.entries:
        for arm in entry.runs:
            _check_values(f"{entry.name}: {arm.label}", arm.changes, manifest, problems)
    if not any(problem.code.startswith("component-") for problem in problems.problems):  # else said already
        for text in binding.contradictions:
            problems.add("binding-contradiction", text, "it cannot be run as it stands", "Edit the binding.")
    problems.raise_if_any()
    builder = _Builder(request, manifest, command, cwd, {k: v for k, v in baseline.items() if v is not None})
    first = builder.arm("baseline", "baseline", {}, spec.seeds, ()).model_copy(update={"is_baseline": True})
    noise = builder.arm("noise", "baseline, other seeds", {}, spec.noise, ()) if spec.noise else None
    ablations = [
        _ablation(rank, entry, builder, first, spec.seeds) for rank, entry in enumerate(binding.entries, start=1)
    ]
    runs = [(run, False) for run in builder.runs.values()]
    repeat = first.runs[spec.seeds[0]] if spec.repeat else None
    if repeat is not None:
        runs.insert(len(spec.seeds), (builder.runs[repeat], True))
    planned = PlannedRuns(
        spec=spec.model_copy(update={"better": manifest.metrics[spec.primary].better}),
        plan_sha256=binding.plan.sha256,
        method=manifest.name,
        baseline=first,
        noise=noise,
        repeat=repeat,
        ablations=tuple(ablations),
        configuration=(("command", " ".join(command)), *((name, str(value)) for name, value in baseline.items())),
        units={name: metric.unit for name, metric in manifest.metrics.items()},
        better={name: metric.better for name, metric in manifest.metrics.items()},
    )
    return planned, runs


def _ablation(
    rank: int, entry: BoundEntry, builder: _Builder, baseline: AblationArm, seeds: Sequence[int]
) -> PlannedAblation:
    arms = []
    left_out = [(part.label or "the whole ablation", f"{part.why} {part.needed}".strip()) for part in entry.unbound]
    if entry.status == "skipped":
        left_out.append(("the whole ablation", entry.why.how if entry.why else "a person left it out"))
    for number, arm in enumerate(() if entry.status == "skipped" else entry.arms, start=1):
        key = f"{rank}.{number}"
        changes = {name: value for name, value in arm.changes.items() if builder.baseline.get(name) != value}
        if not changes:
            arms.append(baseline.model_copy(update={"key": key, "label": arm.label}))
            continue
        why = tuple(
            ArmChange(field=name, before=builder.baseline.get(name), after=value, why="ablated")
            for name, value in changes.items()
        )
        arms.append(builder.arm(key, arm.label, changes, seeds, why))
    return PlannedAblation(
        name=entry.name,
        part=entry.part,
        action=entry.action,
        metrics=tuple(AskedMetric(text=metric.text, name=metric.name) for metric in entry.metrics),
        arms=tuple(arms),
        left_out=tuple(left_out),
        notes=entry.notes,
    )


def _check_command(command: tuple[str, ...], cwd: Path, problems: ProblemList) -> None:
    if not command or command[0] == _FLAGS:
        problems.add("command-missing", "no command", "there is nothing to run", "Give --command, or a manifest's.")
        return
    if command.count(_FLAGS) > 1:
        problems.add("command-flags", " ".join(command), "it holds {flags} more than once", "Leave one.")
    program = command[0]
    there = (cwd / program).is_file() if "/" in program else shutil.which(program) is not None
    if not there:
        problems.add("command-program", program, "there is no such program", "Correct the command.")
    script = next((word for word in command[1:] if not word.startswith("-")), "")
    plain = len(command) > 1 and command[1] == script  # no `-m` or `-c` before it
    if there and plain and Path(script).suffix in _SCRIPTS and not (cwd / script).is_file():
        problems.add("command-file", script, f"there is no such file in {cwd}", "Correct the command.")
    if odd := [word for word in command if _FLAGS in word and word != _FLAGS]:
        problems.add("command-flags", odd[0], "{flags} must stand as a word of its own", "Put spaces around it.")


def _check_values(where: str, values: Mapping[str, Any], manifest: Manifest, problems: ProblemList) -> None:
    for name, value in values.items():
        component: ManifestComponent | None = manifest.components.get(name)
        if component is None:
            known = ", ".join(manifest.components)
            problems.add("component-unknown", f"{where}: {name}", f"the manifest has {known}", "Correct the name.")
        elif value is not None and (why := component.fault_of(value)):
            problems.add("component-value", f"{where}: {name}", why, "Correct the value in the binding.")


def _hashes(words: Sequence[str], cwd: Path) -> dict[str, str]:
    """The files that the command names, by word: an edited script is another run. Large files are left out."""
    found = {}
    for word in words:
        path = cwd / word
        try:
            if path.is_file() and path.stat().st_size <= _HASHED_BYTES:
                found[word] = file_sha256(path)
        except (OSError, ValueError) as error:
            raise InputError.of("command-file", word, f"it cannot be read ({error})", "Check its rights.") from error
    return found
