from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

from optaware.records import StudySpec
from optaware.report._analysis import Cell, Comparison, Family
from optaware.report._arms import Collected
from optaware.report._corpora import CorpusView
from optaware.report._words import number, p_value, percent, points, span
from optaware.stats import rows_needed

__all__ = ["Claim", "claim", "headline", "limits"]

_N = TypeVar("_N", int, float)


@dataclass(frozen=True)
class Claim:
    """One sentence of the answer: where it holds, what was seen, what may be said."""

    place: str
    seen: str
    verdict: str
    kind: str
    run_ids: tuple[str, ...]


def claim(comparison: Comparison) -> Claim:
    """Put one comparison into words; it never says more than its interval and corrected p-value allow."""
    contrast, difference = comparison.contrast, comparison.contrast.difference
    size = points(difference.estimate)
    if size == "0.0":
        way = f"0.0 points from {_words(contrast.baseline)}"
    else:
        amount, side = percent(abs(difference.estimate)), "above" if difference.estimate > 0 else "below"
        unit = "point" if amount == "1.0" else "points"
        way = f"{amount} {unit} {side} {_words(contrast.baseline)}"
    what = f"training on {contrast.arm}" if contrast.baseline == "zero-shot" else contrast.arm
    seen = (
        f"{what} is {way} (95 % interval {span(difference.low, difference.high)}; "
        f"p{_p(contrast.p_value)}, corrected{_p(contrast.p_corrected)})"
    )
    verdict = {
        "higher": "higher, on this task and at this size",
        "lower": "lower, on this task and at this size",
        "open": "no claim either way at this size",
    }[comparison.verdict]
    if comparison.verdict == "open" and comparison.models_differ:
        verdict = "these trained models differ on this task, but one seed allows no claim about the data"
    if comparison.unpaired:
        verdict += f" ({comparison.unpaired})"
    return Claim(comparison.place, seen, verdict, comparison.verdict, contrast.run_ids)


def _words(baseline: str) -> str:
    return "the untrained model" if baseline == "zero-shot" else baseline


def _p(value: float | None) -> str:
    text = p_value(value)
    joined = text if text.startswith("<") else f"= {text}"
    return f"\u00a0{joined}".replace(" ", "\u00a0")


def headline(study: StudySpec, found: Sequence[Family], collected: Collected) -> str:
    """The answer in two or three sentences, counted from the comparisons against the baseline."""
    if not any(arm.scored for arm in collected.arms):
        return "No training run is finished, so there is no answer yet. What is missing, and why, is listed below."
    main = next((family for family in found if family.key == "baseline"), None)
    if main is None or not main.comparisons:
        return (
            f"Accuracies are below. No variant could be compared with “{study.baseline}”: that takes runs of both "
            "with the same seed."
        )
    verdicts = [comparison.verdict for comparison in main.comparisons]
    total, up, down = len(verdicts), verdicts.count("higher"), verdicts.count("lower")
    against = f"with training on the “{study.baseline}” rows"
    if total == 1:
        only = claim(main.comparisons[0])
        return f"{only.place}: {only.seen}: {only.verdict}."
    alone = sum(item.models_differ for item in main.comparisons) - up - down
    if not up and not down and alone:
        return (
            f"In {alone} of {total} comparisons {against} the trained models differ by more than chance on the test "
            "rows, but with one seed per arm that allows no claim about the data: another seed may turn it around."
        )
    if not up and not down:
        return (
            f"None of the {total} comparisons {against} shows a difference that this study can tell from chance. "
            "That is not evidence of no difference: the intervals below say how large a gain or loss remains possible."
            + _between(found)
        )
    seen = [item for item in main.comparisons if item.verdict != "open"]
    named = "; ".join(_short(item) for item in seen[:_NAMED])
    more = f"; and {len(seen) - _NAMED} more, below" if len(seen) > _NAMED else ""
    rest = total - up - down
    open_ones = f" For the other {rest} the data allow no claim either way." if rest else ""
    return (
        f"Of {total} comparisons {against}, {_are(up)} higher and {_are(down)} lower, after correction for the number "
        f"of comparisons: {named}{more}.{open_ones}{_between(found)}"
    )


_NAMED = 4


def _are(n: int) -> str:
    return {0: "none is", 1: "1 is"}.get(n, f"{n} are")


def _short(item: Comparison) -> str:
    difference = item.contrast.difference
    size = f"{points(difference.estimate)} points, interval {span(difference.low, difference.high)}"
    return f"{item.contrast.arm} with {item.place} ({size})"


def _between(found: Sequence[Family]) -> str:
    """What the rewritings say of each other: it is there that a control shows whether the rewriting itself matters."""
    family = next((family for family in found if family.key == "between"), None)
    if family is None or not family.comparisons:
        return ""
    total = len(family.comparisons)
    seen = [item for item in family.comparisons if item.verdict != "open"]
    if not seen:
        return " Between the rewritten variants themselves, no difference can be told from chance."
    return (
        f" Between the rewritten variants themselves, {len(seen)} of {total} "
        f"{'comparison' if total == 1 else 'comparisons'} {'shows' if len(seen) == 1 else 'show'} a difference."
    )


def limits(
    study: StudySpec,
    found: Sequence[Family],
    collected: Collected,
    cells: Sequence[Cell],
    corpora: Sequence[CorpusView],
) -> list[str]:
    """What the study cannot show, in sentences."""
    said = [_seeds(study)]
    comparisons = [comparison for family in found if family.key == "baseline" for comparison in family.comparisons]
    if comparisons:
        said += _sizes(comparisons)
        said.append(
            "With two or more seeds, intervals and p-values both speak of further seeds and further test rows; with "
            "one seed, of further test rows alone. The p-values are corrected for the number of comparisons, the "
            "intervals are not. A difference is claimed only where both agree, and never on one seed."
        )
    if places := _at_majority(cells, collected):
        said.append("These arms cannot be told from always answering the most frequent label: " + places + ".")
    diverged = sum(run.state == "diverged" for arm in collected.arms for run in arm.others)
    if diverged:
        said.append(
            f"{diverged} diverged {'run is' if diverged == 1 else 'runs are'} left out of means and pairs, which "
            "flatters the arm concerned; see “Left out”."
        )
    said += _mixtures([corpus for corpus in corpora if not corpus.accepted])
    said.append(
        f"Results hold for {_count(len(collected.models), 'model')}, {_count(len(collected.tasks), 'task')} and the "
        "settings in the run table; nothing here speaks of others."
    )
    return said


def _sizes(comparisons: Sequence[Comparison]) -> list[str]:
    """How small an effect could have been seen, and what it would take to see two points."""
    halves = [(item.contrast.difference.high - item.contrast.difference.low) / 2 for item in comparisons]
    rows = {item.contrast.n_examples for item in comparisons}
    said = [
        f"The 95 % intervals of the differences from the baseline reach {_range(halves, percent)} points to either "
        f"side ({_range(rows, str)} test rows); smaller effects cannot be told from chance here."
    ]
    if len({len(item.contrast.seeds) for item in comparisons} & {2}):
        said.append(
            "Where only two seeds are paired, two values say so little about the spread between seeds that the "
            "interval can be very wide."
        )
    needed = rows_needed(_WANTED, max(_WANTED, median(item.disagreement for item in comparisons)))
    said.append(
        f"Paired runs differ in what they get right on {_range([item.disagreement for item in comparisons], percent)} "
        f"% of the test rows. At the median of that, seeing a difference of {percent(_WANTED, 0)} points with 80 % "
        f"power takes about {number(round(needed, 2 - len(str(needed))))} test rows per pair of runs, before any "
        "correction or spread between seeds."
    )
    return said


_WANTED = 0.02


def _range(values: Iterable[_N], show: Callable[[_N], str]) -> str:
    low, high = show(min(values := list(values))), show(max(values))
    return low if low == high else f"{low} to {high}"


def _seeds(study: StudySpec) -> str:
    n = len(study.seeds)
    if n == 1:
        return (
            "One seed: no number here says how results vary from seed to seed. Intervals and p-values are about the "
            "test rows alone, and another seed may turn a difference around."
        )
    smallest = 2.0 / 2**n
    note = (
        f"a test over seeds alone could not give p below {smallest:.2g}"
        if smallest > 0.01
        else "enough for a test over seeds alone"
    )
    few = "; with so few the spread between seeds is itself uncertain, which the intervals allow for" if n < 5 else ""
    return f"{n} seeds: {note}{few}."


def _at_majority(cells: Sequence[Cell], collected: Collected) -> str:
    """Arms whose interval holds the share of the most frequent label, place by place: `copa, m: all 9 arms; …`."""
    arms: dict[str, list[tuple[str, bool]]] = {}
    for cell in cells:
        key, majority = cell.arm.key, collected.majority.get(cell.arm.key.task)
        if cell.accuracy is not None and majority is not None:
            within = cell.accuracy.low <= majority <= cell.accuracy.high
            arms.setdefault(f"{key.task}, {key.model}", []).append((f"{key.method} on {key.variant}", within))
    said = []
    for place, each in arms.items():
        names = [name for name, within in each if within]
        if len(names) == len(each) > 1:
            said.append(f"{place}: all {len(each)} arms")
        elif names:
            said.append(f"{place}: {', '.join(names)}")
    return "; ".join(said)


_FEW = 2


def _mixtures(corpora: Sequence[CorpusView]) -> list[str]:
    """What corpora of which too little was accepted mean for runs on them: a sentence each, or one for many."""
    if len(corpora) <= _FEW:
        return [f"{corpus.title}: {corpus.verdict}" for corpus in corpora]
    shares = "; ".join(f"{corpus.title} {percent(corpus.corpus.card.rewriter_accuracy)} %" for corpus in corpora)
    return [
        f"In {len(corpora)} corpora fewer rewrites were accepted than the study asks for ({shares}). Their other "
        "training rows are the original ones, so runs on these corpora test a mixture."
    ]


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")
