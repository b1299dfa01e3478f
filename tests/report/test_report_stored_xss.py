"""Stored XSS in a real headless Chromium: a payload behind every text that a page shows."""

from __future__ import annotations

import os
import shutil

import pytest
from poison import ELEMENTS, PAYLOADS, poison

from optaware.records import short_id
from optaware.report import load_report_corpus, load_report_run
from optaware.report._ablation_render import render_ablation_html
from optaware.report._ablation_view import make_ablation_view
from optaware.report._arms import collect
from optaware.report._compare import StudyRuns, build_comparison
from optaware.report._curves import curve_groups
from optaware.report._panels import curve_panels
from optaware.report._plots import forest
from optaware.report._render import Plots, render_html
from optaware.report._tradeoff import tradeoffs
from optaware.report._view import make_view

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)

ALL = ("".join(PAYLOADS), "".join(reversed(PAYLOADS)))
"""One page holds them all, since drawing takes longer than looking; backwards too, since one may hide the next."""


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra `dev`)")
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # it refuses its own sandbox to root
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def view(disk):
    runs = [load_report_run(folder, spec) for folder, spec in disk.runs]
    return make_view(
        disk.study,
        short_id(disk.study),
        collect(disk.study, runs, {}),
        [load_report_corpus(folder) for folder in disk.corpora],
    )


def report_page(view, payload):
    shown = poison(view, payload)
    variants = [variant.name for variant in shown.study.variants]
    groups = curve_groups(shown.collected.arms, variants)
    methods = [arm.display for arm in shown.study.methods if arm.config.name != "zero-shot"]
    plots = Plots(
        {each.key: forest(each.comparisons, f"f{at}") for at, each in enumerate(shown.families) if each.comparisons},
        tuple((group, tuple(curve_panels(group))) for group in groups),
        tuple(tradeoffs(shown.collected, methods, variants)),
    )
    return render_html(shown, plots, [f"runs.csv{payload}"])


def dead(browser, page, path, *, scripts):
    """Open the page and look: no payload ran, became an element, asked for anything, or broke the page's own script."""
    path.write_text(page, "utf-8")
    context = browser.new_context()
    shown = context.new_page()
    alarms: list[str] = []
    shown.on("dialog", lambda dialog: (alarms.append(dialog.message), dialog.dismiss()))
    shown.on("pageerror", lambda error: alarms.append(str(error)))
    shown.on("console", lambda line: alarms.append(line.text) if line.type in ("error", "warning") else None)
    shown.on("request", lambda request: alarms.append(request.url) if request.url != path.as_uri() else None)
    shown.goto(path.as_uri())
    shown.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert shown.evaluate("window.taken") is None
    own = shown.locator("script").count()
    assert own == scripts
    assert (
        shown.evaluate(f"[...document.querySelectorAll({ELEMENTS!r})].map((each) => each.outerHTML.slice(0, 80))") == []
    )
    policy = shown.get_attribute("meta[http-equiv=Content-Security-Policy]", "content")
    context.close()
    assert alarms == []
    assert "default-src 'none'" in policy
    assert "script-src" not in policy or "script-src 'sha256-" in policy
    return page


@pytest.mark.parametrize("payload", ALL, ids=["forwards", "backwards"])
def test_nothing_in_a_report_comes_alive(browser, view, payload, tmp_path):
    page = report_page(view, payload)
    assert not any(each in page for each in PAYLOADS)
    dead(browser, page, tmp_path / "report.html", scripts=1)


def test_without_escaping_the_suite_would_see_it(browser, tmp_path):
    """The check can fail: the same payloads in a page that does not escape."""
    page = "<meta http-equiv=Content-Security-Policy content=\"default-src 'none'\">" + "<p>".join(PAYLOADS)
    with pytest.raises(AssertionError):
        dead(browser, page, tmp_path / "open.html", scripts=0)


def test_nothing_in_an_ablation_report_comes_alive(browser, planned_and_runs, tmp_path):
    planned, runs = planned_and_runs
    shown = poison(make_ablation_view(planned, runs, None, {"cpu": "Example", "python": "3.11"}), ALL[0])
    page = render_ablation_html(shown, [f"arms.csv{ALL[0]}"])
    assert not any(each in page for each in PAYLOADS)
    dead(browser, page, tmp_path / "ablation.html", scripts=0)


def test_nothing_in_a_comparison_comes_alive(browser, disk, tmp_path):
    runs = tuple(load_report_run(folder, spec) for folder, spec in disk.runs)
    taken = poison(StudyRuns(disk.study, runs), ALL[0], frozenset(disk.study.tasks))
    made = build_comparison(taken, taken, tmp_path)
    page = made.html.read_text("utf-8")
    assert not any(each in page for each in PAYLOADS)
    dead(browser, page, tmp_path / "shown.html", scripts=0)


@pytest.fixture(scope="module")
def planned_and_runs(tmp_path_factory):
    from pathlib import Path

    from optaware.report import AblationRun, CurvePoint
    from optaware.store import Store
    from optaware.study import load_plan_request, make_plan_graph

    study = Path(__file__).parents[2] / "studies" / "mezo_plan.yaml"
    request = load_plan_request(None, study=study, scale="small", options={"baseline.lr": 2e-5})
    planned = make_plan_graph(request, Store(tmp_path_factory.mktemp("store"))).planned
    arms = [planned.baseline, planned.noise]
    arms += [arm for entry in planned.ablations for arm in entry.arms if not arm.is_baseline]
    runs = {}
    for number, arm in enumerate(arms):
        for seed, key in arm.runs.items():
            if number > 6:
                runs[key] = AblationRun(key, seed, "failed", detail="it ended with exit code 1")
                continue
            values = {"accuracy": 0.6 + 0.02 * number, "peak memory": 1e9, "F1": 0.6, "forward passes": 800.0}
            correct = {str(row): int(row < 60 + 2 * number) for row in range(100)}
            curve = (CurvePoint(50, 100, 0.7, 0.6), CurvePoint(400, 800, 0.5, 0.7))
            runs[key] = AblationRun(key, seed, "done", values, correct, curve)
    runs[planned.zero_shot] = AblationRun(planned.zero_shot, 0, "done", {"accuracy": 0.5})
    return planned, runs
