from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from optaware._io import canonical_json
from optaware.records import Energy, Record, StudySpec, fingerprint
from optaware.report._analysis import Cell, Family, cell, families
from optaware.report._arms import ArmKey, Collected, task_name, zero_shot_arm
from optaware.report._choosing import choosing
from optaware.report._claims import Claim, claim, headline, limits
from optaware.report._corpora import CorpusView, corpus_view
from optaware.report._corpus_facts import equal_cost
from optaware.report._flips import FlipGroup, Texts, flip_groups
from optaware.report._inputs import ReportCorpus, ReportRun
from optaware.report._needed import Needed, needed
from optaware.report._paper import PaperTable, RewriterRow, paper_tables, rewriter_rows
from optaware.report._questions import Answer, answers

__all__ = ["AccuracyRow", "AccuracyTable", "Cost", "Machine", "RunRow", "View", "make_view"]

_ONE_TABLE = 150
"""Runs up to which all are in one table."""


@dataclass(frozen=True)
class AccuracyRow:
    """One model and method: a cell per variant (None where the study has no such arm)."""

    model: str
    method: str
    cells: tuple[Cell | None, ...]
    marks: tuple[str, ...]
    """Per variant: `higher`, `lower` or nothing, against the baseline after correction."""


@dataclass(frozen=True)
class AccuracyTable:
    """Accuracies of one task."""

    task: str
    rows_tested: int | None
    rows: tuple[AccuracyRow, ...]
    zero_shot: tuple[tuple[str, Cell], ...]
    majority: float | None


@dataclass(frozen=True)
class Cost:
    """What one arm took."""

    key: ArmKey
    run_ids: tuple[str, ...]
    peak_memory_bytes: int
    train_s: float
    eval_s: float
    step_s: float | None
    forwards: tuple[int, int]
    steps: tuple[int, int]
    joules: float | None
    """Median of the runs' energy; None unless it is known of all."""
    energy_why: str
    """Where it comes from, or why it is unknown."""


@dataclass(frozen=True)
class RunRow:
    """One run in the run table."""

    run: ReportRun
    method: str
    fingerprint: str
    config: str
    schedule: str


@dataclass(frozen=True)
class Machine:
    """One environment and the runs made in it."""

    facts: tuple[tuple[str, str], ...]
    run_ids: tuple[str, ...]


@dataclass(frozen=True)
class View:
    """All that the templates show."""

    study: StudySpec
    study_id: str
    headline: str
    claims: tuple[tuple[Family, tuple[Claim, ...]], ...]
    limits: tuple[str, ...]
    tables: tuple[AccuracyTable, ...]
    families: tuple[Family, ...]
    collected: Collected
    corpora: tuple[CorpusView, ...]
    equal_cost: tuple[str, ...]
    """Which variants had as many rewrites a row; empty where none had several."""
    costs: tuple[Cost, ...]
    energy: tuple[str, ...]
    """Where the known figures of energy come from, and why others are unknown."""
    machines: tuple[Machine, ...]
    runs: tuple[RunRow, ...]
    answers: tuple[Answer, ...]
    """OAT-Rephrase's research questions, where the study can speak to them."""
    rewriters: tuple[RewriterRow, ...]
    """Table 1 in the paper's layout."""
    paper: tuple[PaperTable, ...]
    """Table 2 in the paper's layout, a sub-table per model."""
    needed: tuple[Needed, ...]
    flips: tuple[FlipGroup, ...]
    choices: tuple[Mapping[str, Any], ...]
    """How grid points were chosen, as the study wrote it down."""
    choosing: tuple[str, ...]
    """What choosing took, in sentences."""

    @property
    def finished(self) -> int:
        """Runs that count."""
        return sum(row.run.state == "done" for row in self.runs)

    @property
    def expected(self) -> int:
        """Runs that the study asks for, also those that wait for the choice of a grid point."""
        return len(self.runs) + sum(len(arm.unseen) for arm in self.collected.arms)

    @property
    def run_groups(self) -> tuple[tuple[str, tuple[RunRow, ...]], ...]:
        """The runs for the run table: all in one where a page can bear it, otherwise by task and model."""
        if len(self.runs) <= _ONE_TABLE:
            return (("", self.runs),)
        groups: dict[str, list[RunRow]] = {}
        for row in self.runs:
            key = self.collected.labels.get(row.run.run_id)
            place = f"{key.task}, {key.model}" if key else "not in the study"
            groups.setdefault(place, []).append(row)
        return tuple((place, tuple(rows)) for place, rows in groups.items())

    @property
    def has_examples(self) -> bool:
        """Whether any corpus has rows to show."""
        return any(corpus.examples for corpus in self.corpora)


def make_view(
    study: StudySpec,
    study_id: str,
    collected: Collected,
    corpora: Sequence[ReportCorpus],
    *,
    choices: Sequence[Mapping[str, Any]] = (),
    texts: Texts | None = None,
) -> View:
    """Work out all numbers of the report."""
    found = families(study, collected)
    cells = {arm.key: cell(arm) for arm in collected.arms}
    corpus_views = [corpus_view(corpus) for corpus in corpora]
    costs = tuple(_costs(collected))
    return View(
        study=study,
        study_id=study_id,
        headline=headline(study, found, collected),
        claims=tuple((family, tuple(claim(item) for item in family.comparisons)) for family in found),
        limits=tuple(limits(study, found, collected, list(cells.values()), corpus_views)),
        tables=tuple(_table(task, study, collected, cells, found) for task in collected.tasks),
        families=tuple(found),
        collected=collected,
        corpora=tuple(corpus_views),
        equal_cost=equal_cost(corpora),
        costs=costs,
        energy=_energy_notes(costs),
        machines=tuple(_machines(collected.runs)),
        runs=tuple(_run_row(run, collected) for run in collected.runs),
        answers=answers(study, found, collected),
        rewriters=rewriter_rows(study, collected, corpus_views),
        paper=paper_tables(study, collected, cells, found),
        needed=needed([item for family in found if family.key == "baseline" for item in family.comparisons]),
        flips=flip_groups(found, collected, texts),
        choices=tuple(choices),
        choosing=choosing(choices),
    )


def _table(
    task: str, study: StudySpec, collected: Collected, cells: Mapping[ArmKey, Cell], found: Iterable[Family]
) -> AccuracyTable:
    verdicts = {
        (item.contrast.model, item.contrast.task, item.contrast.method, item.contrast.arm): item.verdict
        for family in found
        if family.key == "baseline"
        for item in family.comparisons
    }
    variants = [variant.name for variant in study.variants]
    places = list(dict.fromkeys((key.model, key.method) for key in cells if key.task == task))
    rows = tuple(
        AccuracyRow(
            model,
            method,
            tuple(cells.get(ArmKey(model, task, method, variant)) for variant in variants),
            tuple(verdicts.get((model, task, method, variant), "") for variant in variants),
        )
        for model, method in places
    )
    untrained = tuple(
        (model, cell(zero_shot_arm(model, task, collected.zero_shot[model, task])))
        for model in collected.models
        if (model, task) in collected.zero_shot
    )
    return AccuracyTable(task, collected.rows.get(task), rows, untrained, collected.majority.get(task))


def _costs(collected: Collected) -> list[Cost]:
    arms = [zero_shot_arm(model, task, scored) for (model, task), scored in collected.zero_shot.items()]
    costs = []
    for arm in [*arms, *collected.arms]:
        results = [item.run.result for item in arm.scored if item.run.result is not None]
        if not results:
            continue
        medians = [result.step_s_median for result in results if result.step_s_median is not None]
        costs.append(
            Cost(
                key=arm.key,
                run_ids=tuple(item.run.run_id for item in arm.scored),
                peak_memory_bytes=max(result.peak_memory_bytes for result in results),
                train_s=median(result.train_s for result in results),
                eval_s=median(result.eval_s for result in results),
                step_s=median(medians) if medians else None,
                forwards=(min(result.forwards for result in results), max(result.forwards for result in results)),
                steps=(min(result.steps for result in results), max(result.steps for result in results)),
                **_energy([result.energy for result in results]),
            )
        )
    order = {task: index for index, task in enumerate(collected.tasks)}
    return sorted(costs, key=lambda cost: order[cost.key.task])


_SOURCES = {"nvml": "the GPU board without the host (NVML)", "rapl": "the processor packages (RAPL)"}


def _energy(found: Sequence[Energy]) -> dict[str, Any]:
    known = [each.joules for each in found if each.joules is not None]
    if len(known) == len(found):
        sources = sorted({_SOURCES[each.source] for each in found if each.source is not None})
        return {"joules": median(known), "energy_why": " and ".join(sources)}
    return {"joules": None, "energy_why": "; ".join(dict.fromkeys(each.why for each in found if each.joules is None))}


def _energy_notes(costs: Sequence[Cost]) -> tuple[str, ...]:
    known = dict.fromkeys(cost.energy_why for cost in costs if cost.joules is not None)
    unknown = dict.fromkeys(cost.energy_why for cost in costs if cost.joules is None)
    said = [f"Where it is known it is that of {'; '.join(known)}."] if known else []
    return (*said, *([f"Unknown because: {'; '.join(unknown)}."] if unknown else []))


def _machines(runs: Sequence[ReportRun]) -> list[Machine]:
    grouped: dict[str, list[ReportRun]] = {}
    for run in runs:
        if run.environment:
            grouped.setdefault(canonical_json(dict(run.environment)), []).append(run)
    return [
        Machine(tuple(_facts(members[0].environment)), tuple(run.run_id for run in members))
        for members in grouped.values()
    ]


def _facts(environment: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    for name, value in environment.items():
        if isinstance(value, Mapping):
            yield name, ", ".join(f"{key} {version}" for key, version in value.items() if version is not None)
        elif value is not None:
            yield name, str(value)


def _run_row(run: ReportRun, collected: Collected) -> RunRow:
    key = collected.labels.get(run.run_id)
    return RunRow(
        run=run,
        method=key.method if key else run.spec.method.name,
        fingerprint=fingerprint(run.spec),
        config=_settings(run.spec.method, ("name",)),
        schedule=_settings(run.spec.schedule),
    )


def _settings(record: Record, without: tuple[str, ...] = ()) -> str:
    """The fields of a record as `name value` pairs, None left out."""
    pairs = [(name, value) for name, value in record.to_json().items() if name not in without and value is not None]
    return ", ".join(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in pairs)


def run_task(run: ReportRun) -> str:
    """The task's short name, for the run table."""
    return task_name(run.spec.rows.task)
