"""Two studies side by side: the arms that both have, with the difference between them."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from optaware._io import write_text
from optaware.errors import InputError
from optaware.records import Interval, StudySpec, short_id
from optaware.records.differences import differences
from optaware.report._analysis import LEVEL, Cell, cell, matched, paired_test
from optaware.report._arms import Arm, ArmKey, Collected, collect
from optaware.report._inputs import ReportRun
from optaware.report._words import p_value, percent, points, span
from optaware.stats import holm, paired_bootstrap

__all__ = ["ComparedArm", "ComparisonFiles", "StudyRuns", "build_comparison", "compare_arms"]

_FIELDS = ("model", "task", "method", "variant")


@dataclass(frozen=True)
class StudyRuns:
    """A study with its runs in any state."""

    study: StudySpec
    runs: Sequence[ReportRun]


@dataclass(frozen=True)
class ComparedArm:
    """One arm in both studies. `difference` is second minus first.

    Attributes:
        key: Model, task, method and variant by name, equal in both.
        first, second: Accuracies.
        difference: Paired over shared seeds and rows, else from the two intervals as independent; None when either
            study has no finished run of it, or both have the same ones.
        p_value, p_corrected: Paired test, and Holm's correction over all arms compared; None where nothing is paired.
        how: How it was compared, in words.
        seeds: Seeds that are paired; as everywhere, fewer than two allow no claim.
    """

    key: ArmKey
    first: Cell
    second: Cell
    difference: Interval | None
    p_value: float | None
    p_corrected: float | None
    how: str
    seeds: int = 0


@dataclass(frozen=True)
class ComparisonFiles:
    """What was written."""

    html: Path
    markdown: Path
    csv: Path


def compare_arms(first: Collected, second: Collected) -> tuple[ComparedArm, ...]:
    """Arms of the same name in both studies, with the difference of their accuracies.

    The same runs in both (on all seeds that both have) count as the same. Where seeds and test rows are shared the
    difference is paired (bootstrap and t test over both; McNemar's test with one seed, which allows no verdict); else
    `√((e₁−l₁)² + (h₂−e₂)²)` and its mirror are the limits' distances (MOVER, Zou and Donner 2008) and no test is made.
    """
    others = {arm.key: arm for arm in second.arms}
    found = [_compare(arm, others[arm.key]) for arm in first.arms if arm.key in others]
    tested = [index for index, item in enumerate(found) if item.p_value is not None]
    for index, value in zip(tested, holm([found[index].p_value or 0.0 for index in tested]), strict=True):
        found[index] = replace(found[index], p_corrected=value)
    return tuple(found)


def _compare(left: Arm, right: Arm) -> ComparedArm:
    first, second = cell(left), cell(right)

    def made(difference: Interval | None, p: float | None, how: str, seeds: int = 0) -> ComparedArm:
        return ComparedArm(left.key, first, second, difference, p, None, how, seeds)

    if first.accuracy is None or second.accuracy is None:
        return made(None, None, "no finished run in one of them")
    if {item.run.run_id for item in left.scored} == {item.run.run_id for item in right.scored}:
        return made(None, None, "the same runs")
    seeds = sorted({item.run.spec.seed for item in left.scored} & {item.run.spec.seed for item in right.scored})
    shared = [{item.run.run_id for item in arm.scored if item.run.spec.seed in seeds} for arm in (left, right)]
    if seeds and shared[0] == shared[1]:  # one study has further seeds: no pair could ever differ
        return made(None, None, "the same runs on the shared seeds")
    pairs = matched(left.scored, right.scored, seeds)
    if pairs is not None:
        a, b, rng = pairs
        test = paired_test(b, a)
        how = f"paired: {len(a)} {'seed' if len(a) == 1 else 'seeds'} × {a.shape[1]} rows; {test.method}"
        return made(paired_bootstrap(b, a, rng=rng, level=LEVEL), test.p_value, how, len(a))
    one, two = first.accuracy, second.accuracy
    gap = two.estimate - one.estimate
    low = gap - ((two.estimate - two.low) ** 2 + (one.high - one.estimate) ** 2) ** 0.5
    high = gap + ((two.high - two.estimate) ** 2 + (one.estimate - one.low) ** 2) ** 0.5
    interval = Interval(estimate=gap, low=low, high=high, level=LEVEL, method="independent arms (MOVER)")
    return made(interval, None, "not paired: no shared seeds and rows")


def build_comparison(first: StudyRuns, second: StudyRuns, out: Path) -> ComparisonFiles:
    """Write `comparison.html` (self-contained), `comparison.md` and `comparison.csv`.

    Args:
        first: The study to compare with.
        second: The study that is compared; differences are second minus first.
        out: Folder to write to.

    Raises:
        InputError: The studies have no arm in common.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    arms = compare_arms(collect(first.study, first.runs, {}), collect(second.study, second.runs, {}))
    if not arms:
        raise InputError.of(
            "nothing-in-common",
            f"{first.study.name} and {second.study.name}",
            "no arm has the same model, task, method and data in both",
            "Give arms the same labels and variants the same names.",
        )
    specs = differences(first.study.to_json(), second.study.to_json())
    environment = Environment(
        loader=PackageLoader("optaware.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({"percent": percent, "points": points, "p": p_value})
    style = files("optaware.report").joinpath("templates", "style.css").read_text("utf-8")
    page = environment.get_template("comparison.html.jinja").render(
        first=first.study,
        second=second.study,
        ids=(short_id(first.study), short_id(second.study)),
        arms=arms,
        specs=specs,
        summary=_summary(arms),
        style=Markup(style),  # noqa: S704 - our own file
    )
    made = ComparisonFiles(out / "comparison.html", out / "comparison.md", out / "comparison.csv")
    write_text(made.html, page)
    write_text(made.markdown, _markdown(first.study, second.study, arms, specs))
    write_text(made.csv, _csv(arms))
    return made


def clear(item: ComparedArm) -> str:
    """`higher` or `lower` where interval and corrected p-value agree and paired seeds are several; else nothing."""
    difference = item.difference
    if difference is None or item.p_corrected is None or item.p_corrected >= 1 - LEVEL or item.seeds < 2:
        return ""
    return "higher" if difference.low > 0 else "lower" if difference.high < 0 else ""


def _summary(arms: Sequence[ComparedArm]) -> str:
    same = sum(item.how.startswith("the same runs") for item in arms)
    paired = sum(item.p_value is not None for item in arms)
    up, down = (sum(clear(item) == way for item in arms) for way in ("higher", "lower"))
    return (
        f"{len(arms)} arms are in both; {same} are the same runs, {paired} could be paired. After correction, {up} are "
        f"higher in the second and {down} lower; for the others the data allow no claim."
    )


def _markdown(first: StudySpec, second: StudySpec, arms: Sequence[ComparedArm], specs: Sequence[Any]) -> str:
    from optaware.report._render import markdown_escape

    lines = [f"# {markdown_escape(second.name)} against {markdown_escape(first.name)}", "", _summary(arms), ""]
    lines += [
        "| method | data | model | task | first, % | second, % | difference | p | Holm | how |",
        "|" + "---|" * 10,
    ]
    for item in arms:
        shown = [_accuracy(each) for each in (item.first, item.second)]
        difference = item.difference
        gap = f"{points(difference.estimate)} ({span(difference.low, difference.high)})" if difference else "–"
        words = [
            item.key.method,
            item.key.variant,
            item.key.model,
            item.key.task,
            *shown,
            f"{gap} {clear(item)}".strip(),
        ]
        words += [p_value(item.p_value), p_value(item.p_corrected), item.how]
        lines.append("| " + " | ".join(str(markdown_escape(word)) for word in words) + " |")
    lines += ["", "## What the studies ask differently", "", "| field | first | second |", "|---|---|---|"]
    lines += ["| " + " | ".join(str(markdown_escape(str(word))) for word in row) + " |" for row in specs]
    return "\n".join(lines) + "\n"


def _accuracy(each: Cell) -> str:
    value = each.accuracy
    return "–" if value is None else f"{percent(value.estimate)} ({percent(value.low)} to {percent(value.high)})"


def _csv(arms: Sequence[ComparedArm]) -> str:
    buffer = io.StringIO()
    header = [*_FIELDS, "first", "second", "difference", "low", "high", "p_value", "p_corrected", "verdict", "how"]
    writer = csv.DictWriter(buffer, header, lineterminator="\n")
    writer.writeheader()
    for item in arms:
        row: Mapping[str, Any] = {
            **{name: getattr(item.key, name) for name in _FIELDS},
            "first": item.first.accuracy.estimate if item.first.accuracy else None,
            "second": item.second.accuracy.estimate if item.second.accuracy else None,
            "difference": item.difference.estimate if item.difference else None,
            "low": item.difference.low if item.difference else None,
            "high": item.difference.high if item.difference else None,
            "p_value": item.p_value,
            "p_corrected": item.p_corrected,
            "verdict": clear(item),
            "how": item.how,
        }
        writer.writerow(row)
    return buffer.getvalue()
