import re
from dataclasses import replace

import pytest

from optaware._io import read_jsonl, write_json, write_jsonl, write_text
from optaware.errors import InputError
from optaware.records import MethodArm, MeZO
from optaware.report import build_report, load_report_corpus, load_report_run

SMALL = {"seeds": (0,), "tasks": ("copa",), "methods": 1, "broken": False}


def _text(files):
    assert "Traceback" not in files.html.read_text("utf-8")
    return files.markdown.read_text("utf-8")


def test_one_seed_says_so(make, tmp_path):
    text = _text(make.report(make.study(tmp_path, **SMALL), tmp_path / "report"))
    assert "One seed: no number here says how results vary from seed to seed." in text
    assert "| higher |" not in text
    assert "exact McNemar" in text


def test_one_seed_never_makes_a_claim_about_the_data(make, tmp_path):
    disk = make.study(tmp_path, **{**SMALL, "tasks": ("sst2",)})
    text = _text(make.report(disk, tmp_path / "report"))
    assert "the trained models differ by more than chance on the test rows, but with one seed per arm" in text
    assert "these trained models differ on this task, but one seed allows no claim about the data" in text
    assert "| higher |" not in text


def test_one_comparison_is_the_answer_itself(make, tmp_path):
    disk = make.study(tmp_path, variants=("original", "oat"), **SMALL)
    text = _text(make.report(disk, tmp_path / "report"))
    answer = text.split("## The answer")[1].split("**")[0]
    assert re.search(r"MeZO low-rank, copa: oat is \d+\.\d points? (above|below) original", answer)
    assert "no claim either way at this size" in answer


def test_only_the_original_rows(make, tmp_path):
    text = _text(make.report(make.study(tmp_path, variants=("original",), **SMALL), tmp_path / "report"))
    assert "this study trains on the original rows only" in text
    assert "No variant could be compared" in text
    assert "Trained against zero-shot" in text


def test_no_run_finished(make, tmp_path):
    disk = make.study(tmp_path, corpora=False, **SMALL)
    for folder, _ in disk.runs:
        (folder / "DONE").unlink()
    text = _text(make.report(disk, tmp_path / "report"))
    assert "No training run is finished, so there is no answer yet." in text
    assert "No rewritten corpus is finished" in text
    assert "no pair of finished runs" in text
    assert "No comparison is possible yet." in text
    assert "0 of 4 runs finished" in text


def test_nothing_at_all(make, tmp_path):
    study = make.study(tmp_path, corpora=False, **SMALL).study
    text = _text(build_report(study, [], [], tmp_path / "report"))
    assert "No runs." in text
    assert "0 of 3 runs finished" in text
    assert "no such run was given to the report" in text


def test_arms_without_any_difference(make, tmp_path):
    disk = make.study(tmp_path, variants=("original", "oat"), **SMALL)
    by_variant = {spec.data.variant: folder for folder, spec in disk.runs if spec.method.name == "mezo"}
    for name in ("predictions.jsonl", "result.json"):
        write_text(by_variant["oat"] / name, (by_variant["original"] / name).read_text("utf-8"))
    text = _text(make.report(disk, tmp_path / "report"))
    assert "oat is 0.0 points from original (95 % interval −3.6 to +3.6" in text
    assert "no pair differs" in text


def test_predictions_that_disagree_with_the_result_are_not_counted(make, tmp_path):
    disk = make.study(tmp_path, **SMALL)
    folder = next(folder for folder, spec in disk.runs if spec.data.variant == "oat")
    rows = read_jsonl(folder / "predictions.jsonl")
    write_jsonl(folder / "predictions.jsonl", rows[:-1])
    text = _text(make.report(disk, tmp_path / "report"))
    assert "its records cannot be used: " in text
    assert "result.json says something else" in text
    assert "3 of 4 runs finished" in text
    write_jsonl(folder / "predictions.jsonl", [{**row, "predicted": 1 - row["predicted"]} for row in rows])
    assert "3 of 4 runs finished" in _text(make.report(disk, tmp_path / "report"))
    (folder / "predictions.jsonl").unlink()
    assert "there is no such file" in _text(make.report(disk, tmp_path / "report"))
    write_text(folder / "predictions.jsonl", '{"example_id": "x"}\n')
    assert "its records cannot be used: " in _text(make.report(disk, tmp_path / "report"))


def test_reasons_given_by_the_caller_are_shown(make, tmp_path):
    disk = make.study(tmp_path, **SMALL)
    folder, _ = disk.runs[-1]
    for path in sorted(folder.iterdir()):
        path.unlink()
    run_id = folder.name[:12]
    text = _text(
        make.report(disk, tmp_path / "report", exclusions={run_id: "its corpus failed", "abc": "budget spent"})
    )
    assert "| missing | its corpus failed |" in text
    assert "| corpus abc | – | left out | budget spent |" in text


def test_a_foreign_run_is_named_and_not_counted(make, tmp_path):
    disk = make.study(tmp_path, **SMALL)
    foreign = make.spec(disk.study, "copa", MethodArm(config=MeZO(lr=1.0)), "original", 0)
    make.run(disk, foreign)
    text = _text(make.report(disk, tmp_path / "report"))
    assert "no arm of the study matches its spec" in text


def test_test_rows_that_only_one_arm_has_are_left_out_of_pairs(make, tmp_path):
    disk = make.study(tmp_path, variants=("original", "oat"), **SMALL)
    folder = next(folder for folder, spec in disk.runs if spec.data.variant == "oat")
    rows = read_jsonl(folder / "predictions.jsonl")[:60]
    write_jsonl(folder / "predictions.jsonl", rows)
    run = load_report_run(folder)
    accuracy = sum(row["label"] == row["predicted"] for row in rows) / 60
    score = run.result.test.model_copy(update={"n": 60, "accuracy": accuracy})
    write_json(folder / "result.json", run.result.model_copy(update={"test": score}).to_json())
    text = _text(make.report(disk, tmp_path / "report"))
    assert "60 of 100 test rows are shared" in text


def test_run_states_are_read_from_the_folder(make, tmp_path):
    disk = make.study(tmp_path, **SMALL)
    folder, spec = disk.runs[-1]
    assert load_report_run(folder).state == "done"
    write_json(folder / "result.json", {**load_report_run(folder).result.to_json(), "outcome": "diverged"})
    assert load_report_run(folder).state == "diverged"
    (folder / "DONE").unlink()
    unfinished = load_report_run(folder)
    assert (unfinished.state, unfinished.detail) == ("missing", "not finished: done at step 1000 of 1000")
    never = load_report_run(tmp_path / "runs" / "nowhere", spec)
    assert (never.state, never.detail, never.steps(), never.evals()) == ("missing", "not started", [], [])
    with pytest.raises(InputError, match="run-unknown"):
        load_report_run(tmp_path / "nowhere")


def test_a_torn_last_step_is_no_fault(make, tmp_path):
    disk = make.study(tmp_path, **SMALL)
    folder, _ = disk.runs[-1]
    whole = load_report_run(folder).steps()
    with (folder / "steps.jsonl").open("a") as file:
        file.write('{"step": 10')
    assert load_report_run(folder).steps() == whole


def test_faults_of_a_corpus_are_reported_together(make, tmp_path):
    disk = make.study(tmp_path, **SMALL)
    folder = disk.corpora[0]
    assert load_report_corpus(folder).card.accepted == 109
    rows = read_jsonl(folder / "decisions.jsonl")
    rows[2]["outcome"] = "perhaps"
    del rows[5]["reason"]
    write_jsonl(folder / "decisions.jsonl", rows)
    with pytest.raises(InputError) as caught:
        load_report_corpus(folder)
    assert [problem.where.rpartition(":")[2] for problem in caught.value.problems] == ["3", "6"]


def test_a_corpus_without_rows(make, tmp_path):
    disk = make.study(tmp_path, variants=("original", "oat"), **SMALL)
    corpus = load_report_corpus(disk.corpora[0])
    empty = dict.fromkeys(("rows", "accepted", "rejected", "failed", "identical"), 0)
    bare = replace(corpus, card=corpus.card.model_copy(update={**empty, "reasons": {}}), decisions=())
    runs = [load_report_run(folder) for folder, _ in disk.runs]
    assert "the corpus has no rows" in _text(build_report(disk.study, runs, [bare], tmp_path / "report"))
