"""The three research questions of OAT-Rephrase, answered in words from a study's own comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optaware.records import StudySpec
from optaware.report._analysis import Comparison, Family
from optaware.report._arms import Collected
from optaware.report._paper import Average, average
from optaware.report._words import points, span

__all__ = ["Answer", "answers", "forward_only"]


@dataclass(frozen=True)
class Answer:
    """One question with what the study says to it, in sentences; `detail` are the numbers, a line each."""

    question: str
    said: str
    detail: tuple[str, ...]


def forward_only(study: StudySpec) -> tuple[str, ...]:
    """Names of the arms that train with forward passes only."""
    return tuple(arm.display for arm in study.methods if arm.config.forward_only and arm.config.name != "zero-shot")


def answers(study: StudySpec, families: Sequence[Family], collected: Collected) -> tuple[Answer, ...]:
    """The questions that the study's arms can speak to: none without a forward-only method and a second variant."""
    forward = forward_only(study)
    variants = [variant.name for variant in study.variants if variant.name != study.baseline]
    if not forward or not variants:
        return ()
    found = {family.key: family.comparisons for family in families}
    against = [item for item in found.get("baseline", ()) if item.contrast.method in forward]
    made = [_first(study, variants, forward, against, found.get("between", ()), collected)]
    if found.get("first-order"):
        made.append(_second(found["first-order"]))
    if len(collected.models) > 1:
        made.append(_third(study, variants, against, found.get("baseline", ()), forward, collected))
    return tuple(made)


def _first(
    study: StudySpec,
    variants: Sequence[str],
    forward: Sequence[str],
    against: Sequence[Comparison],
    between: Sequence[Comparison],
    collected: Collected,
) -> Answer:
    question = f"Does training {' and '.join(forward)} on rewritten rows do better than on the {study.baseline} rows?"
    lines, sentences = [], []
    for variant in variants:
        mine = [item for item in against if item.contrast.arm == variant]
        if not mine:
            continue
        sentences.append(f"{variant}: {_counted(mine)}.")
        for model in collected.models:
            for method in forward:
                part = [each for each in mine if (each.contrast.model, each.contrast.method) == (model, method)]
                if (mean := _mean(part, collected)) is not None:
                    lines.append(f"{variant} − {study.baseline}, {method}, {model}: {_averaged(mean)}")
    control = [item for item in between if item.contrast.method in forward]
    if control:
        sentences.append(
            f"Between the rewritten versions themselves, where a plain paraphrase is the control: {_counted(control)}."
        )
    elif len(variants) == 1:
        sentences.append(
            "Without a second rewriting as a control this cannot tell the optimizer's part from any rewriting."
        )
    return Answer(question, " ".join(sentences) or "No pair of runs is finished.", tuple(lines))


def _second(comparisons: Sequence[Comparison]) -> Answer:
    question = "Does it bring forward-only training up to first-order training on the original rows?"
    higher = [item for item in comparisons if item.verdict == "higher"]
    lower = [item for item in comparisons if item.verdict == "lower"]
    open_ = len(comparisons) - len(higher) - len(lower)
    said = (
        f"Of {len(comparisons)} comparisons, forward-only training is above first-order training in {len(higher)} "
        f"and below it in {len(lower)}; for {open_} the data allow no claim, which is not the same as being level."
    )
    return Answer(question, said, tuple(f"{_named(item)}: {_sized(item)}, {item.verdict}" for item in comparisons))


def _third(
    study: StudySpec,
    variants: Sequence[str],
    against: Sequence[Comparison],
    every: Sequence[Comparison],
    forward: Sequence[str],
    collected: Collected,
) -> Answer:
    question = "Do the same rewritten rows help several models?"
    lines, same = [], []
    for variant in variants:
        means = []
        for model in collected.models:
            part = [each for each in against if each.contrast.model == model and each.contrast.arm == variant]
            if (mean := _mean(part, collected)) is not None:
                means.append((model, mean))
        clear = [model for model, mean in means if mean.interval.low > 0]
        worse = [model for model, mean in means if mean.interval.high < 0]
        if means:
            same.append(
                f"{variant}: averaged over tasks, the interval lies above zero for {len(clear)} of {len(means)} models"
                + (f" ({', '.join(clear)})" if clear else "")
                + (f" and below zero for {', '.join(worse)}" if worse else "")
                + "."
            )
        lines += [
            f"{variant} − {study.baseline}, {', '.join(forward)}, {model}: {_averaged(mean)}" for model, mean in means
        ]
    others = sorted({item.contrast.method for item in every} - set(forward))
    if others:
        rest = [item for item in every if item.contrast.method in others]
        same.append(f"With {' and '.join(others)} on the same rows: {_counted(rest)}.")
    said = f"Each task was rewritten once and used by all {len(collected.models)} models. " + " ".join(same)
    return Answer(question, said, tuple(lines))


def _mean(items: Sequence[Comparison], collected: Collected) -> Average | None:
    return average([(item.contrast.task, item.contrast.difference) for item in items], collected.tasks)


def _averaged(mean: Average) -> str:
    count = len(mean.tasks)
    tasks = f"{count} {'task' if count == 1 else 'tasks'}" + (
        "" if mean.complete else f" ({', '.join(mean.tasks)} only)"
    )
    interval = mean.interval
    return (
        f"{points(interval.estimate)} points on average over {tasks}, 95 % interval {span(interval.low, interval.high)}"
    )


def _counted(items: Sequence[Comparison]) -> str:
    up = sum(item.verdict == "higher" for item in items)
    down = sum(item.verdict == "lower" for item in items)
    total = len(items)
    if not up and not down:
        return f"none of {total} {'comparison' if total == 1 else 'comparisons'} shows a difference beyond chance"
    return f"{up} of {total} higher, {down} lower after correction, {total - up - down} open"


def _named(item: Comparison) -> str:
    contrast = item.contrast
    return f"{contrast.method} on {contrast.arm} − {contrast.baseline}, {contrast.model}, {contrast.task}"


def _sized(item: Comparison) -> str:
    difference = item.contrast.difference
    return f"{points(difference.estimate)} points ({span(difference.low, difference.high)})"
