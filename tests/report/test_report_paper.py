"""The paper's tables and questions, flips, cost panels and LaTeX of the made-up study."""

import csv
import math
import re

import pytest

from optaware.records import Interval
from optaware.report._arms import collect
from optaware.report._flips import flip_groups
from optaware.report._inputs import load_report_corpus, load_report_run
from optaware.report._latex import latex_escape, render_latex
from optaware.report._paper import average
from optaware.report._view import make_view


@pytest.fixture(scope="module")
def view(disk):
    runs = [load_report_run(folder, spec) for folder, spec in disk.runs]
    return make_view(
        disk.study, "x", collect(disk.study, runs, {}), [load_report_corpus(each) for each in disk.corpora]
    )


def interval(estimate, low, high):
    return Interval(estimate=estimate, low=low, high=high, method="")


def test_an_average_combines_the_limits_of_its_tasks():
    parts = [("a", interval(0.10, 0.04, 0.20)), ("b", interval(0.02, -0.06, 0.08))]
    found = average(parts, ("a", "b", "c"))
    assert found.interval.estimate == pytest.approx(0.06)
    assert found.interval.low == pytest.approx(0.06 - math.hypot(0.06, 0.08) / 2)
    assert found.interval.high == pytest.approx(0.06 + math.hypot(0.10, 0.06) / 2)
    assert not found.complete
    assert average([], ("a",)) is None


def test_table_two_has_every_method_on_every_version_of_the_data(view, disk):
    (table,) = view.paper
    assert [(row.method, row.variant) for row in table.rows] == [
        (arm.display, variant.name) for arm in disk.study.methods for variant in disk.study.variants
    ]
    for row in table.rows:
        shown = [each.cell.accuracy.estimate for each in row.cells]
        assert row.average.interval.estimate == pytest.approx(sum(shown) / len(shown))
        assert (row.difference is None) == (row.variant == "original")
    for column in range(len(table.tasks)):
        values = [row.cells[column].cell.accuracy.estimate for row in table.rows]
        assert [row.cells[column].best for row in table.rows] == [value == max(values) for value in values]


def test_marks_of_the_table_are_the_verdicts_of_the_comparisons(view):
    (table,) = view.paper
    verdicts = {
        (item.contrast.method, item.contrast.arm, item.contrast.task): item.verdict
        for item in view.families[0].comparisons
    }
    assert "higher" in verdicts.values()
    for row in table.rows:
        for task, each in zip(table.tasks, row.cells, strict=True):
            assert each.mark == verdicts.get((row.method, row.variant, task), "")


def test_forward_only_arms_meet_first_order_arms_on_the_original_rows(view):
    family = next(each for each in view.families if each.key == "first-order")
    assert {(item.contrast.method, item.contrast.arm, item.contrast.baseline) for item in family.comparisons} == {
        ("MeZO low-rank", variant, "fo-lora on original") for variant in ("paraphrase", "oat")
    }
    questions = [answer.question for answer in view.answers]
    assert len(questions) == 2  # one model: the third question cannot be asked
    assert "MeZO low-rank" in questions[0]


def test_corrections_stand_side_by_side(view):
    for family in view.families:
        for item in family.comparisons:
            assert item.contrast.p_value <= item.p_fdr <= item.contrast.p_corrected + 1e-12


def test_flips_add_up_to_the_difference(disk, view):
    runs = [load_report_run(folder, spec) for folder, spec in disk.runs]
    collected = collect(disk.study, runs, {})
    asked = []

    def texts(task):
        asked.append(task)
        return {f"{task}/test/{row}": (f"prompt {row}", " yes") for row in range(1000)}

    groups = flip_groups(view.families, collected, texts)
    assert asked == ["sst2", "copa"]
    for group in groups:
        difference = group.comparison.contrast.difference.estimate
        assert (group.gained - group.lost) / group.pairs == pytest.approx(difference)
        for flip in group.flips:
            assert (flip.arm_right > flip.baseline_right) == (flip.way == "gained")
    assert any(flip.prompt for group in groups for flip in group.flips)


def test_latex_is_balanced_and_escaped(view, report):
    text = report.latex.read_text("utf-8")
    assert text == render_latex(view)
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 3
    for block in re.findall(r"\\begin\{tabular\}\{([lr]+)\}(.*?)\\end\{tabular\}", text, flags=re.S):
        for line in (line for line in block[1].splitlines() if line.endswith(r"\\")):
            assert line.count(" & ") == len(block[0]) - 1, line
    assert re.search(r"[^\x00-\x7f]", text) is None
    assert latex_escape("50% of_a & {b} #1 $x$ ~^\\") == (
        r"50\% of\_a \& \{b\} \#1 \$x\$ \textasciitilde{}\textasciicircum{}\textbackslash{}"
    )


def test_cells_in_full_precision(view, report):
    (path,) = (each for each in report.csv if each.name == "cells.csv")
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    (table,) = view.paper
    first = table.rows[0]
    found = next(
        row for row in rows if (row["method"], row["variant"], row["task"]) == (first.method, "original", "sst2")
    )
    assert float(found["accuracy"]) == first.cells[0].cell.accuracy.estimate
    assert {row["method"] for row in rows} >= {"zero-shot", "most frequent label"}


def test_grids_say_what_was_stopped_and_what_choosing_took(report):
    text = report.markdown.read_text("utf-8")
    assert "4 of 8 points were stopped early and cannot be chosen" in text
    assert re.search(
        r"120\s?200 forward passes of a batch to choose by instead of 320\s?000", text.replace("&#8239;", "")
    )
    assert "judged after unequal numbers of forward passes" in text
    path = next(path for path in report.csv if path.name == "choices.csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["state"] for row in rows[:4]] == ["done", "pruned", "pruned", "diverged"]
    assert "place 2 of 2" in rows[1]["reason"]
    assert (rows[1]["forwards"], rows[1]["forwards_asked"], rows[1]["chosen"]) == ("12000", "40000", "False")
    page = report.html.read_text("utf-8")
    assert '<span class="tag pruned">pruned</span> stopped after evaluation 6' in page


def test_grids_of_an_earlier_version_are_shown_without_their_cost(disk):
    from optaware.report._choosing import choosing

    points = [{"point": "lr 1", "state": "done", "dev_accuracy": 0.5, "dev_loss": 1.0, "runs": []}]
    assert choosing([{"method": "ZO", "points": points}]) == ()
