from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from optaware.data import HeldOut, make_corpus_spec
from optaware.errors import InputError, ProblemList
from optaware.records import (
    CorpusSpec,
    DataRef,
    Method,
    MethodArm,
    ModelRef,
    RunSpec,
    Schedule,
    StudySpec,
    VariantSpec,
    ZeroShot,
    short_id,
)
from optaware.study._choose import Choice, Option
from optaware.study._given import given_corpus_spec
from optaware.study._memory import fitted
from optaware.study._prune import check_pruning
from optaware.tasks import Splits, Task, get_task, load_splits

__all__ = ["StudyGraph", "plan_study"]


@dataclass(frozen=True)
class StudyGraph:
    """What a study consists of.

    Attributes:
        study: The study.
        corpora: Rewritten corpora, one per task and rewritten variant; every model uses the same ones.
        runs: Training runs that are known beforehand. Those that need no corpus come first, so that a first result is
            seen early.
        choices: Grids, each with the runs that it is chosen by and the runs that follow from every possible choice.
    """

    study: StudySpec
    corpora: tuple[CorpusSpec, ...]
    runs: tuple[RunSpec, ...]
    choices: tuple[Choice, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()
    """Arms that do not fit the memory and may be left out: what, and why."""


def plan_study(study: StudySpec, *, data_dir: Path | None = None) -> StudyGraph:
    """Work out the corpora and runs of a study. Reads tasks, data and templates; imports no torch, calls no model.

    Raises:
        InputError: Tasks, data or templates cannot be used; all faults at once.
    """
    problems = ProblemList(study.name)
    corpora: list[CorpusSpec] = []
    early: list[RunSpec] = []
    late: list[RunSpec] = []
    choices: list[Choice] = []
    left_out: dict[str, str] = {}
    if study.selection.prune is not None:
        with problems.collecting():
            check_pruning(study.selection.prune, [arm.config.name for arm in study.methods if arm.grid])
    for name in study.tasks:
        with problems.collecting():
            task = get_task(name)
            by_variant = _corpora(study, task, name, data_dir, problems)
            corpora += [spec for spec in by_variant.values() if spec is not None]
            for model in study.models:
                maker = _Maker(study, model, name, task)
                if study.zero_shot:
                    early.append(maker.run(ZeroShot(), study.schedule, 0, study.baseline, None))
                for variant, corpus in by_variant.items():
                    for arm in study.methods:
                        if arm.variants is not None and variant not in arm.variants:
                            continue
                        with _memory_short(study, maker, arm, variant, problems, left_out):
                            if len(arm.points(study.schedule)) > 1:
                                choices += maker.choices(arm, variant, corpus)
                            else:
                                (late if corpus else early).extend(maker.runs(arm, variant, corpus))
    problems.raise_if_any()
    runs = _unique([*_by_seed(study, early), *_by_seed(study, late)])
    return StudyGraph(study, tuple(corpora), runs, tuple(choices), tuple(left_out.items()))


@contextmanager
def _memory_short(
    study: StudySpec, maker: _Maker, arm: MethodArm, variant: str, problems: ProblemList, left_out: dict[str, str]
) -> Iterator[None]:
    """Note what does not fit: as left out where the study allows that, else as a fault; once per arm and task."""
    try:
        yield
    except InputError as error:
        if error.code != "memory-short":
            raise
        if study.memory is not None and study.memory.leave_out:
            what = f"{maker.model.name}, {maker.task_name}, {arm.display}, {variant}"
            left_out[what] = f"{error.problems[0].given}: {error.problems[0].why}"
        elif error.problems[0] not in problems.problems:
            problems.problems.extend(error.problems)


def _by_seed(study: StudySpec, runs: list[RunSpec]) -> list[RunSpec]:
    """Per task and model, all arms of one seed before the next: pairs are complete as early as can be."""
    tasks = {name: index for index, name in enumerate(study.tasks)}
    models = {model: index for index, model in enumerate(study.models)}
    seeds = {seed: index for index, seed in enumerate(study.seeds)}

    def place(run: RunSpec) -> tuple[int, int, int]:
        seed = -1 if isinstance(run.method, ZeroShot) else seeds[run.seed]
        return tasks[run.rows.task], models[run.model], seed

    return sorted(runs, key=place)


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
    if variant.rows is not None:
        return given_corpus_spec(study, task, name, variant, splits.train)
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
        judge_file=None if study.judge_file is None else Path(study.judge_file.replace("{task}", task.name)),
    )


@dataclass(frozen=True)
class _Maker:
    """Makes the run specs of one model on one task."""

    study: StudySpec
    model: ModelRef
    task_name: str
    task: Task

    def runs(self, arm: MethodArm, variant: str, corpus: CorpusSpec | None) -> list[RunSpec]:
        (point,) = arm.points(self.study.schedule)
        return [self.run(point.config, point.schedule, seed, variant, corpus) for seed in self.study.seeds]

    def choices(self, arm: MethodArm, variant: str, corpus: CorpusSpec | None) -> list[Choice]:
        study, rule = self.study, self.study.selection
        groups: list[tuple[tuple[int, ...], tuple[int, ...]]] = [((seed,), (seed,)) for seed in study.seeds]
        if not rule.per_seed:
            groups = [(rule.seeds or study.seeds[:1], study.seeds)]
        made = []
        for judged_by, used_for in groups:
            options = tuple(
                Option(
                    point.words,
                    tuple(self.run(point.config, point.schedule, s, variant, corpus, False) for s in judged_by),
                    tuple(self.run(point.config, point.schedule, s, variant, corpus) for s in used_for),
                )
                for point in arm.points(study.schedule)
            )
            seed = used_for[0] if rule.per_seed else None
            made.append(Choice(self.model, self.task_name, arm.display, variant, seed, options, rule.prune))
        return made

    def run(
        self,
        config: Method,
        schedule: Schedule,
        seed: int,
        variant: str,
        corpus: CorpusSpec | None,
        score_test: bool = True,
    ) -> RunSpec:
        study = self.study
        if isinstance(config, ZeroShot):
            schedule = schedule.model_copy(update={"steps": 0})
        else:
            schedule = fitted(study.memory, self.model, config, schedule, self.task.name)
        return RunSpec(
            model=self.model,
            data=DataRef(
                task=self.task_name,
                task_sha256=self.task.sha256,
                protocol=study.protocol,
                variant=variant if corpus else "original",
                corpus_id=short_id(corpus) if corpus else None,
                prompt=study.prompt,
            ),
            method=config,
            schedule=schedule,
            seed=seed,
            threads=study.threads,
            device=study.device,
            deterministic=study.deterministic,
            keep_weights=study.keep_weights and score_test,
            score_test=score_test,
        )


def _unique(runs: list[RunSpec]) -> tuple[RunSpec, ...]:
    return tuple({short_id(run): run for run in runs}.values())
