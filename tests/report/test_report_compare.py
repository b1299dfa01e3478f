"""Two studies side by side."""

import csv
import re
from dataclasses import replace

import numpy as np
import pytest

from optaware.errors import InputError
from optaware.report import StudyRuns, build_comparison, load_report_run
from optaware.report._arms import collect
from optaware.report._compare import clear, compare_arms


def _runs(disk):
    return [load_report_run(folder, spec) for folder, spec in disk.runs]


def test_a_study_against_itself_has_the_same_runs(disk):
    collected = collect(disk.study, _runs(disk), {})
    for item in compare_arms(collected, collected):
        assert item.how == "the same runs"
        assert item.difference is None


@pytest.fixture(scope="module")
def changed(disk, tmp_path_factory):
    """The same study with other test rows answered rightly, in other runs: learning rates differ."""
    from optaware.records import MethodArm

    methods = tuple(
        MethodArm(
            label=arm.display, config=arm.config.model_copy(update={"lr": arm.config.lr * 2}), schedule=arm.schedule
        )
        for arm in disk.study.methods
    )
    study = disk.study.model_copy(update={"name": "other", "methods": methods, "seeds": (0, 1, 2)})
    runs = []
    for run in _runs(disk):
        if run.spec.method.name == "zero-shot" or run.state != "done":
            continue
        method = run.spec.method.model_copy(update={"lr": run.spec.method.lr * 2})
        spec = run.spec.model_copy(update={"method": method})
        from optaware.records import short_id

        runs.append(replace(run, spec=spec, run_id=short_id(spec)))
    return StudyRuns(study, runs)


def test_arms_are_paired_on_shared_seeds_and_rows(disk, changed, tmp_path):
    files = build_comparison(StudyRuns(disk.study, _runs(disk)), changed, tmp_path)
    with files.csv.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * 2
    for row in rows:  # the very same predictions under other ids
        assert row["how"].startswith("paired")
        assert float(row["difference"]) == 0.0
        assert float(row["p_value"]) == 1.0
        assert row["verdict"] == ""
    page = files.html.read_text("utf-8")
    assert "methods" in page
    assert re.findall(r"https?://", page) == []
    assert "<script" not in page
    assert "12 arms are in both" in files.markdown.read_text("utf-8")


def _on_seeds(collected, seeds, right=None):
    """These seeds alone; with `right`, every test row answered so."""
    arms = []
    for arm in collected.arms:
        scored = tuple(item for item in arm.scored if item.run.spec.seed in seeds)
        if right is not None:
            # All but the first row, so that neither accuracy is without spread.
            filled = [np.where(np.arange(len(item.ids)) == 0, 1 - right, right) for item in scored]
            scored = tuple(replace(item, correct=row.astype(np.int8)) for item, row in zip(scored, filled, strict=True))
        arms.append(replace(arm, scored=scored))
    return replace(collected, arms=tuple(arms))


def test_one_shared_seed_allows_no_verdict_however_many_seeds_each_study_has(disk, changed):
    first, second = collect(disk.study, _runs(disk), {}), collect(changed.study, changed.runs, {})
    one = compare_arms(_on_seeds(first, {0, 1}, right=0), _on_seeds(second, {1, 2}, right=1))
    paired = [item for item in one if item.seeds == 1]
    assert len(paired) > len(one) / 2  # a failed and a diverged run have no pair
    assert max(item.p_corrected for item in paired) < 0.001
    assert {clear(item) for item in one} == {""}
    two = compare_arms(_on_seeds(first, {0, 1}, right=0), _on_seeds(second, {0, 1}, right=1))
    assert "higher" in {clear(item) for item in two if item.seeds == 2}


def test_runs_that_both_studies_share_are_not_compared_with_themselves(disk):
    collected = collect(disk.study, _runs(disk), {})
    for item in compare_arms(_on_seeds(collected, {0, 1}), collected):
        assert item.how.startswith("the same runs")
        assert item.difference is item.p_value is None


def test_studies_without_a_common_arm_are_refused(disk, changed, tmp_path):
    from optaware.records import MethodArm

    study = changed.study.model_copy(
        update={
            "methods": tuple(MethodArm(label=f"x {arm.display}", config=arm.config) for arm in changed.study.methods)
        }
    )
    with pytest.raises(InputError, match="nothing-in-common"):
        build_comparison(StudyRuns(disk.study, _runs(disk)), StudyRuns(study, changed.runs), tmp_path)
