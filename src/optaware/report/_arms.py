from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from optaware.errors import InputError
from optaware.records import GridPoint, MethodArm, ModelRef, RunSpec, StudySpec
from optaware.report._inputs import ReportRun
from optaware.report._words import percent, short_reason

__all__ = ["Arm", "ArmKey", "Collected", "LeftOut", "Scored", "collect"]


@dataclass(frozen=True)
class ArmKey:
    """What tells one arm of a study from another: all that a set of seeds shares."""

    model: str
    task: str
    method: str
    variant: str


@dataclass(frozen=True)
class Scored:
    """A finished run with its test rows: `correct[i]` says whether the row `ids[i]` was answered rightly."""

    run: ReportRun
    ids: tuple[str, ...]
    correct: npt.NDArray[np.int8]

    @property
    def accuracy(self) -> float:
        """Share of test rows answered rightly."""
        return float(self.correct.mean())


@dataclass(frozen=True)
class Arm:
    """The runs of one arm: those that count, by seed, and those that do not."""

    key: ArmKey
    scored: tuple[Scored, ...]
    others: tuple[ReportRun, ...]
    seeds: tuple[int, ...]
    """The seeds that the study asks for."""

    @property
    def unseen(self) -> tuple[int, ...]:
        """Seeds of which there is no run at all, as where the point of a grid is not chosen yet."""
        seen = {item.run.spec.seed for item in self.scored} | {run.spec.seed for run in self.others}
        return tuple(seed for seed in self.seeds if seed not in seen)


@dataclass(frozen=True)
class LeftOut:
    """Something that the numbers do not contain, and why."""

    what: str
    state: str
    why: str
    run_id: str = ""


@dataclass(frozen=True)
class Collected:
    """All runs of a study, sorted into arms in the study's own order."""

    arms: tuple[Arm, ...]
    zero_shot: dict[tuple[str, str], Scored]
    """By model and task."""
    majority: dict[str, float]
    """By task: share of the most frequent label among the test rows."""
    rows: dict[str, int]
    """By task: number of test rows."""
    left_out: tuple[LeftOut, ...]
    models: tuple[str, ...]
    tasks: tuple[str, ...]
    labels: dict[str, ArmKey]
    """The arm of every run that belongs to the study, by run id."""
    runs: tuple[ReportRun, ...]
    """Every run once, in the order of the study and in the state that it counts as."""


def zero_shot_arm(model: str, task: str, scored: Scored) -> Arm:
    """The untrained model as an arm of one run."""
    return Arm(ArmKey(model, task, "zero-shot", "none"), (scored,), (), ())


def model_names(models: Sequence[ModelRef]) -> dict[ModelRef, str]:
    """Short names for tables; precision and revision are added where the short name is not unique."""
    short = {model: model.name.rstrip("/").rsplit("/", 1)[-1] for model in models}
    counts = Counter(short.values())
    return {
        model: name
        if counts[name] == 1
        else " ".join(part for part in (model.name, model.dtype, model.revision or "") if part)
        for model, name in short.items()
    }


def task_name(name: str) -> str:
    """The task's name, without folder and ending when it is a file."""
    return name.rstrip("/").rsplit("/", 1)[-1].removesuffix(".yaml").removesuffix(".yml")


def collect(study: StudySpec, runs: Sequence[ReportRun], exclusions: Mapping[str, str]) -> Collected:
    """Sort runs into the arms of the study; a run whose files do not agree is left out, with the reason."""
    names = model_names(study.models)
    tasks = {name: task_name(name) for name in study.tasks}
    scored: dict[str, Scored] = {}
    checked: list[ReportRun] = []
    labels: dict[str, dict[str, int]] = {}
    known_ids: dict[tuple[str, ...], tuple[str, ...]] = {}
    for run in {run.run_id: run for run in runs}.values():
        if run.state == "done":
            try:
                found, by_id = _score(run)
                # The runs of a task have the same test rows: one copy of their ids is kept.
                scored[run.run_id] = replace(found, ids=known_ids.setdefault(found.ids, found.ids))
                labels.setdefault(task_name(run.spec.rows.task), {}).update(by_id)
            except InputError as error:
                run = replace(run, state="failed", detail=f"its records cannot be used: {short_reason(str(error))}")
        checked.append(run)
    points = _points(study)
    keys = {run.run_id: key for run in checked if (key := _key(study, run.spec, names, tasks, points)) is not None}
    arms = _arms(study, checked, scored, keys, names, tasks)
    checked = _in_order(checked, keys, arms, tuple(tasks.values()))
    zero_shot: dict[tuple[str, str], Scored] = {}
    for run in checked:
        key = keys.get(run.run_id)
        if key is not None and key.method == "zero-shot" and run.run_id in scored:
            zero_shot.setdefault((key.model, key.task), scored[run.run_id])
    return Collected(
        arms=arms,
        zero_shot=zero_shot,
        majority={task: max(Counter(found.values()).values()) / len(found) for task, found in labels.items() if found},
        rows={task: len(found) for task, found in labels.items()},
        left_out=_left_out(checked, keys, arms, exclusions),
        models=tuple(names.values()),
        tasks=tuple(tasks.values()),
        labels=keys,
        runs=tuple(checked),
    )


def _score(run: ReportRun) -> tuple[Scored, dict[str, int]]:
    predictions = run.predictions()
    ids = tuple(prediction.example_id for prediction in predictions)
    correct = np.array([prediction.correct for prediction in predictions], dtype=np.int8)
    if not ids or len(set(ids)) != len(ids):
        raise InputError.of(
            "predictions", f"{len(ids)} predictions", "test rows are missing or given twice", "Run it again."
        )
    test = run.result.test if run.result is not None else None
    if test is None or test.n != len(ids) or abs(test.accuracy - correct.mean()) > 1e-6:
        raise InputError.of(
            "predictions",
            f"accuracy {correct.mean():.6f} on {len(ids)} predictions",
            "result.json says something else",
            "Run it again.",
        )
    return Scored(run, ids, correct), {prediction.example_id: prediction.label for prediction in predictions}


_Points = dict[str, list[tuple[MethodArm, GridPoint]]]
"""Every setting that the study's arms may come to, by the JSON of its config."""


def _points(study: StudySpec) -> _Points:
    found: _Points = {}
    for arm in study.methods:
        for point in arm.points(study.schedule):
            found.setdefault(point.config.model_dump_json(), []).append((arm, point))
    return found


def _key(
    study: StudySpec, spec: RunSpec, names: dict[ModelRef, str], tasks: dict[str, str], points: _Points
) -> ArmKey | None:
    if spec.model not in names or spec.rows.task not in tasks:
        return None
    model, task = names[spec.model], tasks[spec.rows.task]
    if spec.method.name == "zero-shot":
        return ArmKey(model, task, "zero-shot", spec.rows.variant)
    same = points.get(spec.method.model_dump_json(), [])
    # Arms may differ in their schedule alone, as a batch of 16 and one of 8 with twice the steps do; a point that two
    # arms have is that of the arm which has no other.
    exact = [arm for arm, point in same if point.schedule == spec.schedule]
    exact = sorted(exact or [arm for arm, point in same if _made_for(point, spec)], key=lambda arm: bool(arm.grid))
    known = {variant.name for variant in study.variants}
    if not same or spec.rows.variant not in known:
        return None
    return ArmKey(model, task, (exact[0] if exact else same[0][0]).display, spec.rows.variant)


def _made_for(point: GridPoint, spec: RunSpec) -> bool:
    """Whether the run is of this point; where memory was short its batch may have been split or halved."""
    asked, used = point.schedule, spec.schedule
    rows = asked.steps * asked.batch_size == used.steps * used.batch_size
    return point.config == spec.method and rows and asked.max_length == used.max_length


def _wanted(study: StudySpec, arm: MethodArm) -> list[str]:
    return [variant.name for variant in study.variants if arm.variants is None or variant.name in arm.variants]


def _arms(
    study: StudySpec,
    runs: Sequence[ReportRun],
    scored: Mapping[str, Scored],
    keys: Mapping[str, ArmKey],
    names: dict[ModelRef, str],
    tasks: dict[str, str],
) -> tuple[Arm, ...]:
    by_key: dict[ArmKey, list[ReportRun]] = {}
    for run in sorted(runs, key=lambda run: (run.spec.seed, run.run_id)):
        if run.run_id in keys:
            by_key.setdefault(keys[run.run_id], []).append(run)
    arms = []
    for task in tasks.values():
        for model in names.values():
            for method in study.methods:
                if method.config.name == "zero-shot":
                    continue
                for variant in _wanted(study, method):
                    key = ArmKey(model, task, method.display, variant)
                    found = by_key.get(key, [])
                    counted = tuple(scored[run.run_id] for run in found if run.run_id in scored)
                    others = tuple(run for run in found if run.run_id not in scored)
                    arms.append(Arm(key, counted, others, study.seeds))
    return tuple(arms)


def _in_order(
    runs: Sequence[ReportRun], keys: Mapping[str, ArmKey], arms: Sequence[Arm], tasks: Sequence[str]
) -> list[ReportRun]:
    """By task, then zero-shot before the arms as the study lists them; runs of no arm last."""
    places = {arm.key: index for index, arm in enumerate(arms)}

    def place(run: ReportRun) -> tuple[int, int, int, str]:
        key = keys.get(run.run_id)
        task = tasks.index(key.task) if key else len(tasks)
        return task, places.get(key, -1) if key else 0, run.spec.seed, run.run_id

    return sorted(runs, key=place)


def _left_out(
    runs: Sequence[ReportRun], keys: Mapping[str, ArmKey], arms: Sequence[Arm], exclusions: Mapping[str, str]
) -> tuple[LeftOut, ...]:
    found = []
    for run in runs:
        if run.state == "done" and run.run_id in keys:
            continue
        why = short_reason(exclusions.get(run.run_id) or run.detail or "no reason was recorded")
        if run.run_id not in keys:
            found.append(LeftOut(run.spec.slug, "not in the study", "no arm of the study matches its spec", run.run_id))
            continue
        if run.state == "diverged" and run.result is not None:
            test = run.result.test
            then = f", test accuracy then {percent(test.accuracy)} %" if test is not None else ""
            stopped = f"stopped at step {run.result.steps}{then}"
            why = f"{short_reason(run.detail) or 'no usable loss'} ({stopped}, not counted)"
        found.append(LeftOut(run.spec.slug, run.state, why, run.run_id))
    for arm in arms:
        if missing := [str(seed) for seed in arm.unseen]:
            what = f"{arm.key.model}, {arm.key.task}, {arm.key.method}, {arm.key.variant}: seed {', '.join(missing)}"
            found.append(LeftOut(what, "missing", "no such run was given to the report"))
    known = {run.run_id for run in runs}
    found += [
        LeftOut(key if "," in key else f"corpus {key}", "left out", short_reason(why))
        for key, why in exclusions.items()
        if key not in known
    ]
    return tuple(found)
