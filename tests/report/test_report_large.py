"""What changes with the size of a study: bands instead of lines, runs in groups, files read in one go."""

from __future__ import annotations

import os
import re
import shutil

import numpy as np
import pytest

from optaware._io import dumps, read_jsonl
from optaware.errors import InputError
from optaware.records import Prediction
from optaware.report import _view, load_report_run
from optaware.report._axis import engineering, nice_ticks
from optaware.report._curves import MOST_LINES, Curve, CurveGroup, bands
from optaware.report._panels import curve_panels

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SMALL = {"seeds": (0,), "tasks": ("sst2",), "methods": 1, "broken": False}


def curves(count, *, series=0, x=(0.0, 10.0, 20.0), ended=""):
    return [Curve(series, f"r{series}-{index}", x, tuple(index + each for each in x), ended) for index in range(count)]


def group(train):
    names = tuple((series, f"v{series}") for series in sorted({curve.series for curve in train}))
    return CurveGroup("m", "t", "MeZO", names, 1, tuple(train), (), (), tuple(curve.run_id for curve in train))


def test_many_runs_of_a_variant_become_a_median_and_a_band():
    few, many = curves(MOST_LINES, series=1), curves(MOST_LINES + 1)
    (band,) = bands([*few, *many])
    assert (band.series, band.runs, band.x) == (0, MOST_LINES + 1, (0.0, 10.0, 20.0))
    assert band.low == (0.0, 10.0, 20.0)
    assert band.middle == (4.0, 14.0, 24.0)
    assert band.high == (8.0, 18.0, 28.0)


def test_a_band_reads_off_runs_evaluated_elsewhere_and_leaves_out_the_diverged():
    odd = Curve(0, "odd", (0.0, 20.0), (100.0, 120.0))
    short = [Curve(0, f"s{i}", (0.0, 10.0), (3.0, 13.0)) for i in range(4)]
    (band,) = bands([*curves(5), odd, *short, *curves(3, ended="diverged")])
    assert band.runs == 10
    assert band.high == (100.0, 110.0, 120.0)
    (ends_early,) = bands([*curves(2), *(Curve(0, f"s{i}", (0.0, 10.0), (3.0, 13.0)) for i in range(9))])
    assert ends_early.x == (0.0, 10.0)  # less than half of the runs reach further


def test_a_panel_of_many_runs_has_few_lines_and_says_so():
    few, many = curve_panels(group(curves(3)))[0], curve_panels(group([*curves(50), *curves(4, ended="diverged")]))[0]
    assert few.count('class="sc"') == 2 * 3  # a line and its dots each
    assert "fill-opacity" not in few
    assert many.count('class="sc"') == 2
    assert many.count("fill-opacity") == 1
    assert many.count("l7 7m0 -7l-7 7") == 4  # a cross per diverged run
    assert "over 50 runs" in many


def test_a_diverged_run_does_not_squeeze_the_others():
    wild = Curve(0, "wild", (0.0, 10.0), (1.0, 1e9), "diverged")
    (svg,) = curve_panels(group([*curves(2), wild]))
    drawn = [float(y) for y in re.findall(r"[ML][\d.]+ (-?[\d.]+)", svg)]
    assert min(drawn) >= 0  # its line ends at the top edge
    assert len({y for y in drawn if y > 30}) > 5  # the two others still have a slope
    (alone,) = curve_panels(group([Curve(0, "flat", (0.0,), (0.5,))]))  # one point, no extent at all
    assert "nan" not in alone


@pytest.mark.parametrize(
    ("low", "high", "labels"),
    [
        (0.0, 1.0, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0.643, 0.752, ["0.65", "0.70", "0.75"]),
        (-3.0, 3.0, ["−2", "0", "2"]),
        (0.0, 70_000.0, ["0", "20000", "40000", "60000"]),
        (2.0, 2.0, ["2"]),
    ],
)
def test_ticks_are_round_and_few(low, high, labels):
    assert [label for _, label in nice_ticks(low, high)] == labels


def test_counts_in_few_letters():
    assert [engineering(value) for value in (0, 950, 999.9, 1500, 20_000, 3e6, 7e9)] == [
        *("0", "950", "1k", "1.5k", "20k", "3M", "7G")
    ]


def test_predictions_read_at_once_are_those_read_line_by_line(make, tmp_path):
    folder, _ = make.study(tmp_path, **SMALL).runs[-1]
    path = folder / "predictions.jsonl"
    rows = [Prediction.model_validate(row) for row in read_jsonl(path)]
    assert load_report_run(folder).predictions() == rows
    path.write_text(path.read_text().replace("\n", "\n\n  \n", 3))
    assert load_report_run(folder).predictions() == rows


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"example_id": "a", "label": "x", "predicted": 0, "scores": []}', r"predictions\.jsonl:3"),
        ('{"example_id": "a", "label": 0, "predicted": 0, "scores": [NaN]}', "NaN is no JSON number"),
        ('{"example_id": "a", "label": 0, "predicted": 0, "scores": []},' * 2, "Extra data"),
        ("{", r"predictions\.jsonl:3"),
    ],
)
def test_a_line_that_is_wrong_is_named(make, tmp_path, line, said):
    folder, _ = make.study(tmp_path, **SMALL).runs[-1]
    path = folder / "predictions.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], line.rstrip(","), *lines[2:]]) + "\n")
    with pytest.raises(InputError, match=said):
        load_report_run(folder).predictions()


def test_a_step_without_numbers_is_left_out_of_the_mean(make, tmp_path):
    folder, _ = make.study(tmp_path, **SMALL).runs[-1]
    steps = load_report_run(folder).steps()
    assert set(steps[0]) == {"step", "loss", "forwards"}
    with (folder / "steps.jsonl").open("a") as file:
        file.write(dumps({"step": 10**6, "loss": None, "forwards": "many"}) + "\n")
    assert load_report_run(folder).steps() == [*steps, {"step": 10**6, "loss": None, "forwards": "many"}]


def test_a_large_run_table_is_in_groups_that_links_and_the_filter_open(make, tmp_path, monkeypatch):
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `dev`)")
    monkeypatch.setattr(_view, "_ONE_TABLE", 3)
    disk = make.study(tmp_path, seeds=tuple(range(11)), tasks=("copa", "sst2"), methods=1, corpora=False, broken=False)
    html = make.report(disk, tmp_path / "report").html
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        page = chromium.new_page()
        page.goto(html.as_uri())
        rows, total = page.locator(".run:visible"), page.locator(".run").count()
        assert rows.count() == 0
        assert page.locator(".group[data-of=run]").count() == 2
        page.locator("#accuracy details.seeds summary").first.click()
        link = page.locator("#accuracy details.seeds a").first
        link.click()
        assert page.locator(link.get_attribute("href")).is_visible()
        wanted = page.locator(".run").last.get_attribute("id").removeprefix("run-")
        page.locator("form[data-filter=run] input").fill(wanted)
        assert rows.count() == 1
        assert page.locator("form[data-filter=run] .shown").inner_text() == f"1 of {total} shown"
        chromium.close()


def test_ids_are_kept_once(make, tmp_path):
    from optaware.report._arms import collect

    disk = make.study(tmp_path, seeds=(0, 1), tasks=("sst2",), methods=1, corpora=False, broken=False)
    found = collect(disk.study, [load_report_run(*run) for run in disk.runs], {})
    scored = [item for arm in found.arms for item in arm.scored]
    assert len(scored) > 2
    assert len({id(item.ids) for item in scored}) == 1
    assert all(np.array_equal(item.correct, item.correct.astype(bool)) for item in scored)


def test_many_comparisons_without_a_claim_are_folded_and_keep_their_links(make, tmp_path, monkeypatch):
    from optaware.report import _render

    disk = make.study(tmp_path, corpora=False, broken=False)
    whole = make.report(disk, tmp_path / "whole").html.read_text("utf-8")
    monkeypatch.setattr(_render, "_MANY_CLAIMS", 0)
    folded = make.report(disk, tmp_path / "folded").html.read_text("utf-8")
    answer = re.search(r'<section id="answer".*?</section>', folded, flags=re.DOTALL).group()
    assert "<summary>No claim either way (" in answer
    assert "No claim either way (" not in whole
    shown, hidden = answer.split("<details>", 1)[0], answer.split("<details>", 1)[1].split("</details>", 1)[0]
    assert 'class="verdict open"' not in shown
    assert 'class="verdict open"' in hidden
    assert 'class="verdict higher"' not in hidden

    def links(text):
        """What is said, and where its link leads."""
        return set(re.findall(r'<li><strong>(.*?)<a [^>]*href="#(baseline-\d+)"', text))

    assert links(answer) == links(whole)
    assert len(links(whole)) > 4
