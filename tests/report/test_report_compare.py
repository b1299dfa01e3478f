"""Two studies side by side."""

import csv
import re

import pytest

from optaware.errors import InputError
from optaware.report import StudyRuns, build_comparison, load_report_run
from optaware.report._arms import collect
from optaware.report._compare import compare_arms


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
        from dataclasses import replace

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


def test_studies_without_a_common_arm_are_refused(disk, changed, tmp_path):
    from optaware.records import MethodArm

    study = changed.study.model_copy(
        update={
            "methods": tuple(MethodArm(label=f"x {arm.display}", config=arm.config) for arm in changed.study.methods)
        }
    )
    with pytest.raises(InputError, match="nothing-in-common"):
        build_comparison(StudyRuns(disk.study, _runs(disk)), StudyRuns(study, changed.runs), tmp_path)
