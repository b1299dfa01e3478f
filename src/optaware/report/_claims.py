from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optaware.records import StudySpec
from optaware.report._analysis import Cell, Comparison, Family
from optaware.report._arms import Collected
from optaware.report._corpora import CorpusView
from optaware.report._words import p_value, percent, points, span

__all__ = ["Claim", "claim", "headline", "limits"]


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
        way = f"the same as {_words(contrast.baseline)} (0.0 points)"
    else:
        amount, side = percent(abs(difference.estimate)), "above" if difference.estimate > 0 else "below"
        unit = "point" if amount == "1.0" else "points"
        way = f"{amount} {unit} {side} {_words(contrast.baseline)}"
    what = f"{contrast.arm} data" if contrast.baseline == "zero-shot" else contrast.arm
    seen = (
        f"training on {what} is {way} (95 % interval {span(difference.low, difference.high)}; "
        f"p {_p(contrast.p_value)}, corrected {_p(contrast.p_corrected)})"
    )
    verdict = {
        "higher": "higher, on this task and at this size",
        "lower": "lower, on this task and at this size",
        "open": "no claim either way at this size",
    }[comparison.verdict]
    if comparison.unpaired:
        verdict += f" ({comparison.unpaired})"
    place = f"{contrast.method}, {contrast.model}, {contrast.task}"
    return Claim(place, seen, verdict, comparison.verdict, contrast.run_ids)


def _words(baseline: str) -> str:
    return "the untrained model" if baseline == "zero-shot" else baseline


def _p(value: float | None) -> str:
    text = p_value(value)
    return text if text.startswith("<") else f"= {text}"


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
    if not up and not down:
        return (
            f"None of the {total} comparisons {against} shows a difference that this study can tell from chance. "
            "That is not evidence of no difference: the intervals below say how large a gain or loss remains possible."
        )
    counted = " and ".join(part for part in (f"{up} higher" * bool(up), f"{down} lower" * bool(down)) if part)
    rest = total - up - down
    open_ones = f" For the other {rest} the data allow no claim either way." if rest else ""
    return f"Of {total} comparisons {against}, {counted}, after correction for the number of comparisons.{open_ones}"


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
        halves = [(item.contrast.difference.high - item.contrast.difference.low) / 2 for item in comparisons]
        rows = sorted({item.contrast.n_examples for item in comparisons})
        sizes = f"{rows[0]}" if len(rows) == 1 else f"{rows[0]} to {rows[-1]}"
        widths = percent(min(halves)) if len(halves) == 1 else f"{percent(min(halves))} to {percent(max(halves))}"
        said.append(
            f"With {sizes} test rows the intervals reach ±{widths} points around the differences from the baseline; "
            "smaller effects cannot be told from chance here."
        )
        said.append(
            "The p-values ask whether these trained models differ on further test rows; they do not cover other seeds. "
            "The intervals do when there are two or more seeds. A difference is claimed only where both agree."
        )
    at_majority = [_at_majority(cell, collected) for cell in cells]
    if names := [name for name in at_majority if name]:
        said.append(
            "These arms cannot be told from always answering the most frequent label: " + "; ".join(names) + "."
        )
    diverged = sum(run.state == "diverged" for arm in collected.arms for run in arm.others)
    if diverged:
        said.append(
            f"{diverged} diverged {'run is' if diverged == 1 else 'runs are'} left out of means and pairs, which "
            "flatters the arm concerned; see “Left out”."
        )
    said += [f"{corpus.title}: {corpus.verdict}" for corpus in corpora if not corpus.accepted]
    said.append(
        f"Results hold for {_count(len(collected.models), 'model')}, {_count(len(collected.tasks), 'task')} and the "
        "settings in the run table; nothing here speaks of others."
    )
    return said


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


def _at_majority(cell: Cell, collected: Collected) -> str | None:
    majority = collected.majority.get(cell.arm.key.task)
    if cell.accuracy is None or majority is None or not cell.accuracy.low <= majority <= cell.accuracy.high:
        return None
    key = cell.arm.key
    return f"{key.method} on {key.variant} ({key.model}, {key.task})"


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")
