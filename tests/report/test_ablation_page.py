"""The report of the MeZO plan over made-up runs: what it says where, and that it never says more than it has."""

from pathlib import Path

import pytest

from optaware.report import AblationRun, CurvePoint
from optaware.report._ablation_render import render_ablation_html, render_ablation_markdown
from optaware.report._ablation_view import make_ablation_view
from optaware.store import Store
from optaware.study import load_plan_request, make_plan_graph

STUDY = Path(__file__).parents[2] / "studies" / "mezo_plan.yaml"
SHIFT = {"4": -0.2, "1e-4": 0.0, "removed": 0.0}


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    request = load_plan_request(None, study=STUDY, scale="small", options={"baseline.lr": 2e-5})
    return make_plan_graph(request, Store(tmp_path_factory.mktemp("store"))).planned


def runs_of(planned, labels):
    """Runs of the baseline and of the arms with these labels; 400 rows, a few of which differ between seeds."""
    arms = [("baseline", planned.baseline), ("baseline", planned.noise)]
    arms += [(arm.label, arm) for entry in planned.ablations for arm in entry.arms if not arm.is_baseline]
    runs = {}
    for label, arm in arms:
        for seed, key in arm.runs.items():
            if label != "baseline" and label not in labels:
                runs[key] = AblationRun(key, seed, "missing", detail="not started")
                continue
            right = round(400 * (0.7 + SHIFT.get(label, 0.0))) + seed % 2
            values = {"accuracy": right / 400, "peak memory": 1.5e9 if label == "removed" else 1e9, "F1": 0.6}
            values |= {"forward passes": 800.0, "wall time": 40.0, "training speed": 500.0}
            correct = {str(row): int(row < right) for row in range(400)}
            curve = (CurvePoint(50, 100, 0.7, 0.6), CurvePoint(400, 800, 0.5, 0.7))
            runs[key] = AblationRun(key, seed, "done", values, correct, curve)
    return runs


def view_of(planned, labels, *, start=None):
    runs = runs_of(planned, labels)
    curve = (CurvePoint(0, 0, start, 0.5),) if start else ()
    runs[planned.zero_shot] = AblationRun(planned.zero_shot, 0, "done", {"accuracy": 0.5}, curve=curve)
    return make_ablation_view(planned, runs, None, {})


def sections(text):
    """Sections of the Markdown by heading."""
    parts = text.split("\n## ")
    return {part.partition("\n")[0]: part for part in parts}


def test_each_ablation_says_what_was_found_and_no_more(planned):
    view = view_of(planned, ["4", "1e-4", "removed"], start=0.8)
    verdicts = [table.verdict for table in view.tables]
    assert verdicts == ["matters", "inconclusive", "does not matter", "no result", "no result"]
    assert "No result yet: Ablation D: PEFT Variants, Ablation E: Gradient Estimator Choice." in view.headline
    text = sections(render_ablation_markdown(view))
    assert "4: −20.0 points" in text["Ablation A: SPSA Sample Size"]
    assert "memory reduction" not in text["Ablation A: SPSA Sample Size"]
    assert "| memory reduction | – | −50.0 % |" in text["Ablation C: Memory-Efficient Mechanism"]
    assert "| training speed, rows/s |" in text["Ablation C: Memory-Efficient Mechanism"]
    assert "LoRA: no pair of finished runs" in text["Ablation D: PEFT Variants"]
    assert "the untrained model's dev loss" in text["Noise floor and baseline"].replace("\\", "")
    assert view.target == pytest.approx(0.8 - 0.9 * 0.3)


def test_a_target_without_the_untrained_model_says_where_it_begins(planned):
    view = view_of(planned, ["4"])
    assert view.target == pytest.approx(0.7 - 0.9 * 0.2)
    assert "the mean of the baseline's first dev losses" in render_ablation_markdown(view).replace("\\", "")


def test_rows_of_every_table_have_as_many_cells_as_its_head(planned):
    lines = render_ablation_markdown(view_of(planned, ["4", "removed"], start=0.8)).splitlines()
    heads = [at for at, line in enumerate(lines) if line.startswith("|---")]
    assert len(heads) == 2 * len(planned.ablations)
    for at in heads:
        wanted = lines[at].count("|")
        end = next(n for n in range(at, len(lines)) if not lines[n].startswith("|"))
        assert end > at + 1
        assert {line.count("|") for line in lines[at - 1 : end]} == {wanted}


def test_the_page_shows_the_same(planned):
    page = render_ablation_html(view_of(planned, ["4", "removed"], start=0.8), ["arms.csv"])
    assert "−20.0" in page
    assert "difference from the baseline in accuracy, points" in page
    assert "<script" not in page
    assert "5 ablations of mezo" in page
