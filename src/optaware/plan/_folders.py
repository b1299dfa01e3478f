from __future__ import annotations

from pathlib import Path

from optaware.errors import InputError, ProblemList
from optaware.plan._match import LexicalMatcher, Matcher
from optaware.plan._parse import read_plan
from optaware.plan._score import PlanScore, score_plan
from optaware.records import AblationPlan, Interval, PlanDocument, Record

__all__ = ["FolderScore", "MeanScore", "PaperScore", "score_folders"]

_MEASURES = ("precision", "recall", "f1", "ndcg")


class PaperScore(Record):
    """The score of one paper's plan; `fault` says why a plan that could not be read counts as zero."""

    paper: str
    score: PlanScore
    fault: str | None = None


class MeanScore(Record):
    """A measure averaged over papers; the interval is None for a single paper."""

    measure: str
    mean: float
    interval: Interval | None


class FolderScore(Record):
    """Scores of a folder of plans.

    Attributes:
        papers: One score for each reference; a plan that is missing or cannot be read counts as zero.
        means: Means over these papers.
        without_reference: Plans that no reference belongs to; they are not counted.
    """

    matcher: str
    k: int | None
    papers: tuple[PaperScore, ...]
    means: tuple[MeanScore, ...]
    without_reference: tuple[str, ...]

    @property
    def faults(self) -> tuple[PaperScore, ...]:
        """Papers whose plan was missing, unreadable, or read only in part."""
        return tuple(paper for paper in self.papers if paper.fault)


def score_folders(
    plans: Path, references: Path, *, k: int | None = None, matcher: Matcher | None = None
) -> FolderScore:
    """Score every plan of a folder against the reference of the same name (without its ending).

    A planner that delivered nothing for a paper scores zero there, and the paper is named: leaving it out would
    flatter planners that fail.

    Raises:
        InputError: No references, two files for one paper, or a reference that cannot be read whole.
    """
    judge = matcher or LexicalMatcher()
    planned, wanted = _files(plans), _files(references)
    if not wanted:
        raise InputError.of("reference-empty", str(references), "the folder has no files", "Give another folder.")
    problems = ProblemList(str(references))
    read: dict[str, PlanDocument] = {}
    for paper, path in wanted.items():
        with problems.collecting():
            read[paper] = read_plan(path)
            if not read[paper].understood:
                problems.add("reference-damaged", path.name, "some entries were not understood", "Mend them first.")
    problems.raise_if_any()
    papers = tuple(_paper(paper, planned.get(paper), read[paper].plan, k, judge) for paper in sorted(wanted))
    return FolderScore(
        matcher=judge.identity,
        k=k,
        papers=papers,
        means=tuple(_mean(measure, papers) for measure in _MEASURES),
        without_reference=tuple(sorted(set(planned) - set(wanted))),
    )


def _files(folder: Path) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not path.is_file():
            continue
        if path.stem in found:
            given, why = f"{found[path.stem].name} and {path.name}", "both are for the same paper"
            raise InputError.of("paper-twice", given, why, "Keep one of them.", str(folder))
        found[path.stem] = path
    return found


def _paper(paper: str, path: Path | None, reference: AblationPlan, k: int | None, matcher: Matcher) -> PaperScore:
    plan, fault = AblationPlan(entries=()), None
    if path is None:
        fault = "no plan for this paper; it counts as zero"
    else:
        try:
            document = read_plan(path)
        except InputError as error:
            fault = f"{error.problems[0].why}; it counts as zero"
        else:
            plan = document.plan
            lost = sum(item.entry is None for item in document.items)
            fault = f"{lost} entries were not understood" if lost else None
    return PaperScore(paper=paper, score=score_plan(plan, reference, k=k, matcher=matcher), fault=fault)


def _mean(measure: str, papers: tuple[PaperScore, ...]) -> MeanScore:
    values = [getattr(paper.score, measure) for paper in papers]
    interval = None
    if len(values) > 1:
        from optaware.stats import mean_interval  # brings numpy, which reading a plan does not need

        found = mean_interval(values)
        method = f"t over {len(values)} papers, cut to [0, 1]"
        interval = found.model_copy(update={"low": max(0.0, found.low), "high": min(1.0, found.high), "method": method})
    return MeanScore(measure=measure, mean=sum(values) / len(values), interval=interval)
