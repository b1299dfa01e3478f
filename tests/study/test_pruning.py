"""Early stopping of grid points: decided by dev curves alone, the same after a kill, and never the other way round."""

import json
import random
import shutil

import pytest
import yaml

from optaware.errors import InputError
from optaware.records import EvalRecord, RunStatus, StudySpec, fingerprint, short_id
from optaware.records.fingerprint import _hashed
from optaware.store import Store
from optaware.study import choose, cost_of_study, load_study, plan_study
from optaware.study._choose import due_runs, note_pruned
from optaware.study._prune import check_pruning, rungs

RATES = [1.0e-3, 3.0e-4, 1.0e-4, 3.0e-5]


@pytest.fixture(scope="module")
def study_data(study_file):
    """The small study with four learning rates for MeZO, three evaluations and no rewriting."""
    data = yaml.safe_load(study_file.read_text("utf-8"))
    data |= {
        "variants": [{"name": "original"}],
        "methods": [
            {
                "label": "ZO",
                "config": {"name": "mezo", "direction": "low-rank", "lr": 1.0e-3, "refresh_every": 3},
                "grid": {"lr": RATES},
            }
        ],
        "selection": {"prune": {"rule": "halving", "after": 1, "factor": 2}},
        "zero_shot": False,
        "seeds": [0],
    }
    for role in ("rewriter", "judge"):
        del data[role]
    return data


def planned(data, **selection):
    return plan_study(StudySpec.model_validate({**data, "selection": selection}))


def write_curve(store, run, accuracies, *, upto=None):
    """Evaluations of one run, as if it had trained that far."""
    folder = store.run_folder(run)
    every, rows = run.schedule.eval_every, []
    for number, accuracy in enumerate(accuracies[:upto], start=1):
        row = EvalRecord(step=every * number, split="dev", loss=2 - accuracy, accuracy=accuracy, n=6, wall_s=0.0)
        rows.append(json.dumps(row.model_copy(update={"forwards": 2 * row.step}).to_json()) + "\n")
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.evals.write_text("".join(rows), "utf-8")
    folder.write_status(RunStatus(state="stopped"))


def steps_due(choice, store, failed=frozenset()):
    names = {short_id(run): option.words for option in choice.options for run in option.tries}
    return {names[short_id(run)]: step for run, step in due_runs([choice], store, failed).items()}


def test_points_go_from_rung_to_rung(study_data, tmp_path):
    (choice,) = planned(study_data, prune={"factor": 2}).choices
    words = [option.words for option in choice.options]
    assert list(rungs(choice.prune, [run.schedule for run in choice.tries])) == [1, 2]
    curves = dict(zip(words, [(0.5, 0.5, 0.5), (0.9, 0.6, 0.6), (0.6, 0.9, 0.9), (0.1, 1.0, 1.0)], strict=True))
    store = Store(tmp_path)
    assert steps_due(choice, store) == dict.fromkeys(words, 2)
    order = [option.tries[0] for option in choice.options]
    random.Random(0).shuffle(order)  # whoever ends first changes nothing
    for run in order:
        option = next(each for each in choice.options if run in each.tries)
        write_curve(store, run, curves[option.words], upto=1)
    assert steps_due(choice, store) == {words[1]: 4, words[2]: 4}
    for index in (1, 2):
        write_curve(store, choice.options[index].tries[0], curves[words[index]], upto=2)
    # The rung asks what each point would be chosen by if training ended there: its best so far, 0.9 and 0.9; the tie
    # goes to the earlier in the grid.
    assert steps_due(choice, store) == {words[1]: None}
    chosen = choose(choice, store)
    assert [state for state, _, _ in chosen.scores] == ["pruned", "missing", "pruned", "pruned"]
    assert not chosen.complete
    assert "after evaluation 1 (step 2): successive halving, place 3 of 4" in chosen.reasons[0]
    assert chosen.reasons[1] == ""
    points = chosen.to_json(store)["points"]
    assert [point["forwards"] for point in points] == [4, 8, 8, 4]
    assert {point["forwards_asked"] for point in points} == {12}


def test_a_point_that_failed_takes_no_part(study_data, tmp_path):
    (choice,) = planned(study_data, prune={"factor": 2}).choices
    store = Store(tmp_path)
    for option, accuracy in zip(choice.options, (0.9, 0.8, 0.7, 0.6), strict=True):
        write_curve(store, option.tries[0], (accuracy,))
    words = [option.words for option in choice.options]
    assert set(steps_due(choice, store)) == set(words[:2])
    assert set(steps_due(choice, store, frozenset({short_id(choice.tries[0])}))) == set(words[1:3])


def test_the_median_rule_is_optuna_s(study_data, tmp_path):
    pytest.importorskip("optuna")
    (choice,) = planned(study_data, prune={"rule": "median", "factor": 2}).choices
    store = Store(tmp_path)
    for option, accuracy in zip(choice.options, (0.9, 0.5, 0.7, 0.6), strict=True):
        write_curve(store, option.tries[0], (accuracy,))
    words = [option.words for option in choice.options]
    # Medians of the others: 0.6, 0.7, 0.6, 0.7.
    assert set(steps_due(choice, store)) == {words[0], words[2]}
    assert "median of the other 3" in choose(choice, store).reasons[3]


def test_runs_that_were_stopped_say_so_and_keep_no_checkpoint(study_data, tmp_path):
    (choice,) = planned(study_data, prune={"factor": 2}).choices
    store = Store(tmp_path)
    for option, accuracy in zip(choice.options, (0.9, 0.8, 0.7, 0.6), strict=True):
        write_curve(store, option.tries[0], (accuracy,))
        (store.run_folder(option.tries[0]).path / "checkpoint-last").mkdir()
    note_pruned([choice], store, "tiny", frozenset())
    folders = [store.run_folder(run) for run in choice.tries]
    assert [folder.read_status().state for folder in folders] == ["stopped", "stopped", "pruned", "pruned"]
    assert "study tiny: stopped after evaluation 1" in folders[2].read_status().detail
    assert [(folder.path / "checkpoint-last").exists() for folder in folders] == [True, True, False, False]


def test_smaller_batches_reach_a_rung_after_as_many_rows(study_data, tmp_path):
    data = {**study_data, "methods": [{**study_data["methods"][0], "grid": {"batch_size": [4, 2]}}]}
    (choice,) = planned(data, prune={"factor": 2}).choices
    assert steps_due(choice, Store(tmp_path)) == {"batch_size 4": 2, "batch_size 2": 4}


def test_what_cannot_be_stopped_early_is_refused(study_data):
    rule = StudySpec.model_validate(study_data).selection.prune
    check_pruning(rule, ["mezo"])
    with pytest.raises(InputError, match="prune-method"):
        check_pruning(rule, ["mezo", "complementary-prompt-tuning"])


def test_studies_without_it_keep_their_ids(study_data):
    plain = StudySpec.model_validate({**study_data, "selection": {"seeds": [0]}})
    assert fingerprint(plain) != fingerprint(StudySpec.model_validate(study_data))
    fields = plain.to_json()
    assert fields["selection"] == {"seeds": [0], "per_seed": False, "prune": None}
    hashed = _hashed("Selection", fields["selection"])
    assert hashed == {"seeds": [0], "per_seed": False}  # as it was before the field was there


def test_a_dry_run_counts_what_halving_leaves(study_data, tmp_path):
    graph = planned(study_data, prune={"factor": 2})
    (row,) = cost_of_study(graph, Store(tmp_path)).rows
    # Two points make 2 of 6 steps, one makes 4, one makes all; the final run 6; a step has two forward passes.
    assert row.forwards == 2 * (2 + 2 + 4 + 6 + 6)
    whole = planned(study_data)
    assert cost_of_study(whole, Store(tmp_path)).rows[0].forwards == 2 * (4 * 6 + 6)


@pytest.fixture(scope="module")
def ended(tmp_path_factory, study_data, optaware):
    """The study run whole, with its file."""
    folder = tmp_path_factory.mktemp("pruned")
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study_data), "utf-8")
    done = optaware("run", path, "--store", folder / "store", "--executor", "in-process")
    assert done.returncode == 0, done.stderr
    return folder / "store", path


def decisions(store):
    (written,) = json.loads(next(store.glob("studies/*/choices.json")).read_text("utf-8"))
    return written


def test_a_study_stops_points_and_says_so(ended):
    store, path = ended
    graph = plan_study(load_study(path))
    (choice,) = graph.choices
    written = decisions(store)
    states = [point["state"] for point in written["points"]]
    assert sorted(states) == ["done", "pruned", "pruned", "pruned"]
    assert written["chosen"] == written["points"][states.index("done")]["point"]
    for run, state in zip(choice.tries, states, strict=True):
        folder = Store(store).run_folder(run)
        assert folder.is_done == (state == "done")
        assert folder.read_status().state == state
        assert not folder.predictions.exists()
        assert not list(folder.path.glob("checkpoint-*"))
    page = next(store.glob("studies/*/report.md")).read_text("utf-8")
    assert "3 of 4 points were stopped early and cannot be chosen" in page
    assert "judged after unequal numbers of forward passes" in page
    made = sum(point["forwards"] for point in written["points"])
    assert f"{made} forward passes of a batch to choose by instead of 48" in page
    assert "successive halving" in next(store.glob("studies/*/report.html")).read_text("utf-8")


def test_the_curves_are_those_of_a_run_that_was_not_stopped(ended, optaware, tmp_path):
    """Run to its end, a stopped point goes through the evaluations that it had; it still is not chosen."""
    store, path = ended
    (choice,) = plan_study(load_study(path)).choices
    stopped = next(run for run in choice.tries if not Store(store).run_folder(run).is_done)
    before = _figures(Store(store).run_folder(stopped))
    again = Store(tmp_path / "again")
    shutil.copytree(store, again.root)
    assert optaware("train", again.run_folder(stopped).spec, "--store", again.root, "--quiet").returncode == 0
    assert len(_figures(again.run_folder(stopped))) == 3
    assert _figures(again.run_folder(stopped))[: len(before)] == before
    assert choose(choice, again).to_json(again)["chosen"] == decisions(store)["chosen"]


def _figures(folder):
    rows = [json.loads(line) for line in folder.evals.read_text("utf-8").splitlines()]
    return [{key: value for key, value in row.items() if key != "wall_s"} for row in rows]


def test_a_killed_driver_comes_to_the_same_decisions(ended, interrupted, optaware, tmp_path):
    store, path = ended
    place = tmp_path / "killed"
    command = ["run", path, "--store", place, "--executor", "in-process"]
    interrupted(command, lambda: len(list(place.glob("runs/*/eval.jsonl"))) >= 2)
    done = optaware(*command)
    assert done.returncode == 0, done.stderr
    assert decisions(place) == decisions(store)
