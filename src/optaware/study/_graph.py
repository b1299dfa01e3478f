from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from optaware.data import HeldOut, make_corpus_spec
from optaware.errors import InputError, ProblemList
from optaware.records import (
    CorpusSpec,
    DataRef,
    MethodArm,
    ModelRef,
    RunSpec,
    StudySpec,
    VariantSpec,
    ZeroShot,
    short_id,
)
from optaware.tasks import Splits, Task, get_task, load_splits

__all__ = ["StudyGraph", "plan_study"]


@dataclass(frozen=True)
class StudyGraph:
    """What a study consists of.

    Attributes:
        study: The study.
        corpora: Rewritten corpora, one per task and rewritten variant.
        runs: Training runs. Those that need no corpus come first, so that a first result is seen early.
    """

    study: StudySpec
    corpora: tuple[CorpusSpec, ...]
    runs: tuple[RunSpec, ...]


def plan_study(study: StudySpec, *, data_dir: Path | None = None) -> StudyGraph:
    """Work out the corpora and runs of a study. Reads tasks, data and templates; imports no torch, calls no model.

    Raises:
        InputError: Tasks, data or templates cannot be used; all faults at once.
    """
    problems = ProblemList(study.name)
    corpora: list[CorpusSpec] = []
    early: list[RunSpec] = []
    late: list[RunSpec] = []
    for name in study.tasks:
        with problems.collecting():
            task = get_task(name)
            by_variant = _corpora(study, task, name, data_dir, problems)
            corpora += [spec for spec in by_variant.values() if spec is not None]
            for model in study.models:
                if study.zero_shot:
                    early.append(_run(study, model, name, task, _ZERO_SHOT, 0, study.baseline, None))
                for seed in study.seeds:
                    for variant, corpus in by_variant.items():
                        for arm in study.methods:
                            if arm.variants is None or variant in arm.variants:
                                spec = _run(study, model, name, task, arm, seed, variant, corpus)
                                (late if corpus else early).append(spec)
    problems.raise_if_any()
    return StudyGraph(study, tuple(corpora), _unique([*early, *late]))


_ZERO_SHOT = MethodArm(config=ZeroShot())


def _corpora(
    study: StudySpec, task: Task, name: str, data_dir: Path | None, problems: ProblemList
) -> dict[str, CorpusSpec | None]:
    splits = load_splits(task, study.protocol, data_dir=data_dir)
    found: dict[str, CorpusSpec | None] = {}
    for variant in study.variants:
        with problems.collecting():
            found[variant.name] = _corpus(study, task, name, variant, splits)
    return found


def _corpus(study: StudySpec, task: Task, name: str, variant: VariantSpec, splits: Splits) -> CorpusSpec | None:
    if variant.template is None:
        return None
    if study.rewriter is None:
        raise InputError.of("rewriter-missing", variant.name, "it has a template but no rewriter", "Name a rewriter.")
    return make_corpus_spec(
        task=task,
        task_name=name,
        protocol=study.protocol,
        variant=variant.name,
        template=variant.template,
        examples=splits.train,
        rewriter=study.rewriter,
        judge=study.judge or study.rewriter,
        gate=study.gate,
        retries=variant.retries,
        search=variant.search,
        held_out=HeldOut.of(task, (*splits.dev, *splits.test)),
    )


def _run(
    study: StudySpec,
    model: ModelRef,
    task_name: str,
    task: Task,
    arm: MethodArm,
    seed: int,
    variant: str,
    corpus: CorpusSpec | None,
) -> RunSpec:
    schedule = arm.schedule or study.schedule
    if isinstance(arm.config, ZeroShot):
        schedule = schedule.model_copy(update={"steps": 0})
    return RunSpec(
        model=model,
        data=DataRef(
            task=task_name,
            task_sha256=task.sha256,
            protocol=study.protocol,
            variant=variant if corpus else "original",
            corpus_id=short_id(corpus) if corpus else None,
            prompt=study.prompt,
        ),
        method=arm.config,
        schedule=schedule,
        seed=seed,
        threads=study.threads,
        device=study.device,
        keep_weights=study.keep_weights,
    )


def _unique(runs: list[RunSpec]) -> tuple[RunSpec, ...]:
    return tuple({short_id(run): run for run in runs}.values())
