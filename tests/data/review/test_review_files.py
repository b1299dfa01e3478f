"""Labels on disk, undo, agreement, word differences, and where pairs come from."""

from __future__ import annotations

import json

import pytest

from optaware._io import read_jsonl, text_sha256, write_jsonl
from optaware.data import load_user_corpus
from optaware.data.review import (
    LabelsFile,
    Review,
    RowFinder,
    agreed_labels,
    agreement,
    approved_rows,
    corpus_pairs,
    differences,
    make_pair,
    read_labels,
    read_pairs,
    standing,
    visible,
    without_originals,
    write_pairs,
)
from optaware.errors import InputError


@pytest.fixture
def made(rows_of):
    task, examples = rows_of("copa")
    texts = ["The baker shut the shop early.", "Mia let the vase {twice} fall.", "The bus went on."]
    return task, examples, [make_pair(task, row, text) for row, text in zip(examples, texts, strict=False)]


def test_labels_are_on_disk_as_they_are_made_and_the_last_one_stands(made, tmp_path):
    _, _, pairs = made
    path = tmp_path / "labels.jsonl"
    with LabelsFile(path, "ann") as file:
        file.add(pairs[0], "same", note=" fine ", seconds=1.5)
        assert [label.note for label in read_labels(path)] == ["fine"]
        file.add(pairs[1], "skipped")
        file.add(pairs[1], "not the same", faults=("meaning",))
    found = standing(read_labels(path))["ann"]
    assert [found[pair.id].answer for pair in pairs[:2]] == ["same", "not the same"]
    assert len(read_labels(path)) == 3
    assert found[pairs[0].id].at.endswith("+00:00")


def test_undo_goes_back_through_earlier_sessions_and_restores_what_stood_before(made, tmp_path):
    _, _, pairs = made
    path, known = tmp_path / "labels.jsonl", {pair.id: pair for pair in pairs}
    with LabelsFile(path, "ann") as file:
        file.add(pairs[0], "same", note="first")
        file.add(pairs[1], "same")
        file.add(pairs[0], "not the same")
    with LabelsFile(path, "ann") as file:
        assert file.undo(known) == pairs[0].id
        assert (file.current[pairs[0].id].answer, file.current[pairs[0].id].note) == ("same", "first")
    with LabelsFile(path, "ann") as file:  # what was taken back stays taken back
        assert file.undo(known) == pairs[1].id
        assert file.undo(known) == pairs[0].id
        assert file.undo(known) is None
        assert not file.current
    assert standing(read_labels(path)) == {"ann": {}}
    assert len(read_labels(path)) == 6  # nothing is ever removed


def test_undo_touches_only_the_labellers_own_acts_on_the_pairs_shown(made, tmp_path):
    _, _, pairs = made
    path = tmp_path / "labels.jsonl"
    for name in ("ann", "bob"):
        with LabelsFile(path, name) as file:
            file.add(pairs[0], "same")
    with LabelsFile(path, "ann") as file:
        assert file.undo({pairs[1].id: pairs[1]}) is None
        assert file.undo({pairs[0].id: pairs[0]}) == pairs[0].id
    found = standing(read_labels(path))
    assert not found["ann"]
    assert found["bob"][pairs[0].id].answer == "same"


def test_a_line_torn_by_a_kill_is_cut_off(made, tmp_path):
    _, _, pairs = made
    path = tmp_path / "labels.jsonl"
    with LabelsFile(path, "ann") as file:
        file.add(pairs[0], "same")
    with path.open("a") as file:
        file.write('{"pair_id": "half')
    assert len(read_labels(path)) == 1
    with LabelsFile(path, "ann") as file:
        file.add(pairs[1], "same")
    assert [label.pair_id for label in read_labels(path)] == [pairs[0].id, pairs[1].id]


def test_one_process_writes_at_a_time_and_labels_need_a_name(made, tmp_path):
    with LabelsFile(tmp_path / "l.jsonl", "ann"):
        with pytest.raises(InputError) as error:
            LabelsFile(tmp_path / "l.jsonl", "bob")
        assert error.value.code == "labels-busy"
    with pytest.raises(InputError) as error:
        LabelsFile(tmp_path / "l.jsonl", " ")
    assert error.value.code == "labeller-missing"


def test_malformed_labels_are_all_named_and_the_lock_is_freed(made, tmp_path):
    path = tmp_path / "l.jsonl"
    path.write_text('{"answer": "maybe"}\n{"pair_id": 1}\n')
    for _ in range(2):
        with pytest.raises(InputError) as error:
            LabelsFile(path, "ann")
        places = {problem.where for problem in error.value.problems}
        assert places == {f"{path}: row 1", f"{path}: row 2"}


def test_a_same_pair_has_no_faults(made, tmp_path):
    with LabelsFile(tmp_path / "l.jsonl", "ann") as file, pytest.raises(InputError):
        file.add(made[2][0], "same", faults=("role",))
    assert not read_labels(tmp_path / "l.jsonl")


@pytest.mark.parametrize(
    ("original", "rewritten", "gone", "new"),
    [
        ("The cat sat.", "The cat slept.", ["sat"], ["slept"]),
        ("one  two", "one two", [], []),
        ("It's not so", "It's so", ["not"], []),
        ("Er kam", "Er kam nicht an", [], ["nicht an"]),
        ("", "x", [], ["x"]),
    ],
)
def test_word_differences(original, rewritten, gone, new):
    left, right = differences(original, rewritten)
    assert [part.text.strip() for part in left if part.changed] == gone
    assert [part.text.strip() for part in right if part.changed] == new
    assert "".join(part.text for part in left) == original
    assert "".join(part.text for part in right) == rewritten


def test_nothing_hides_in_a_text():
    assert visible("a\u202eb\u200bc\ud800\x00") == "a⟨U+202E⟩b⟨U+200B⟩c⟨U+D800⟩⟨U+0000⟩"
    assert visible("\u200djoin 👩\u200d🚀 नमस्\u200dते\n\t") == "⟨U+200D⟩join 👩\u200d🚀 नमस्\u200dते\n\t"


def test_very_long_texts_are_shown_without_marks():
    left, right = differences("word " * 5000, "other " * 5000)
    assert [part.changed for part in left + right] == [False, False]


def test_pairs_in_a_file_are_looked_up_by_id_and_keep_their_ids(made, tmp_path, monkeypatch):
    task, examples, pairs = made
    write_jsonl(tmp_path / "data" / "copa" / "train.jsonl", [row.fields for row in examples])
    write_jsonl(tmp_path / "data" / "copa" / "validation.jsonl", [examples[0].fields])
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    loose = [{"example_id": pair.example_id, "rewrite": pair.rewritten} for pair in pairs]
    write_jsonl(tmp_path / "loose.jsonl", [*loose, loose[0]])
    assert read_pairs(tmp_path / "pairs.jsonl") == pairs
    assert read_pairs(tmp_path / "loose.jsonl", task, find=RowFinder(task, tmp_path / "data")) == pairs
    assert pairs[0].given["Right"] == "The bread was sold out."
    with LabelsFile(tmp_path / "labels.jsonl", "ann") as file:
        file.add(pairs[0], "same")
    bare = [label.to_json() for label in without_originals(read_labels(tmp_path / "labels.jsonl"))]
    assert bare[0]["original"] is None
    write_jsonl(tmp_path / "bare.jsonl", bare)
    assert read_pairs(tmp_path / "bare.jsonl", task, find=RowFinder(task, tmp_path / "data")) == pairs[:1]
    bare[0]["original_sha256"] = text_sha256("another text")
    write_jsonl(tmp_path / "bare.jsonl", bare)
    with pytest.raises(InputError) as error:
        read_pairs(tmp_path / "bare.jsonl", task, find=RowFinder(task, tmp_path / "data"))
    assert error.value.code == "original-changed"


def test_all_faults_of_a_pairs_file_are_told_at_once(made, tmp_path):
    task, examples, _ = made
    write_jsonl(tmp_path / "data" / "copa" / "train.jsonl", [row.fields for row in examples])
    write_jsonl(tmp_path / "data" / "copa" / "validation.jsonl", [examples[0].fields])
    rows = [
        {"rewritten": "x"},
        {"example_id": "copa/train/99", "rewritten": "x"},
        {"example_id": "copa/train/0", "original": "Something else.", "rewritten": "x"},
        {"original": "a", "rewritten": "b", "colour": "red"},
        ["no row"],
    ]
    write_jsonl(tmp_path / "pairs.jsonl", rows)
    with pytest.raises(InputError) as error:
        read_pairs(tmp_path / "pairs.jsonl", task, find=RowFinder(task, tmp_path / "data"))
    codes = [problem.code for problem in error.value.problems]
    assert codes == ["original-missing", "row-unknown", "original-differs", "field-extra-forbidden", "not-a-row"]


def test_a_corpus_gives_its_rewrites_and_takes_back_those_approved(bench, tmp_path):
    corpus = bench("copa")
    said = {"0": "The baker shut the shop early.", "1": "Mia let the vase {twice} fall.", "2": "The bus did not stop.",
            "3": "I cannot help with that."}  # fmt: skip

    def reply(request):
        kind, name = request.key.split(":", 1)
        return said[name[-1]] if kind == "rewrite" else "not the same" if name.endswith("1") else "same"

    corpus.build(reply)
    task, pairs = corpus_pairs(corpus.folder)
    assert [(pair.example_id, pair.outcome, pair.reason) for pair in pairs] == [
        ("copa/train/0", "accepted", "accepted"),
        ("copa/train/1", "rejected", "judge:meaning"),
    ]  # row 2 is unchanged, row 3 has no rewrite
    assert pairs[1].original == "Mia dropped the vase {twice}."
    assert pairs[1].given["Right"] == "It broke into pieces."
    assert len(corpus_pairs(corpus.folder, unchanged=True)[1]) == 3
    with LabelsFile(tmp_path / "l.jsonl", "ann") as file:
        file.add(pairs[0], "not the same")
        file.add(pairs[1], "same")
    labels, _ = agreed_labels(read_labels(tmp_path / "l.jsonl"))
    write_jsonl(tmp_path / "approved.jsonl", approved_rows(task, corpus.examples, labels))
    rows = load_user_corpus(tmp_path / "approved.jsonl", task, corpus.examples)
    assert [task.span_text(row) for row in rows[:2]] == ["The baker closed the shop early.", said["1"]]
    (corpus.folder / "DONE").unlink()
    with pytest.raises(InputError) as error:
        corpus_pairs(corpus.folder)
    assert error.value.code == "corpus-unfinished"


def test_agreement_of_two_labellers(made, tmp_path):
    _, _, pairs = made
    path = tmp_path / "l.jsonl"
    answers = {"ann": ["same", "same", "not the same"], "bob": ["same", "not the same", "not the same"]}
    for name, given in answers.items():
        with LabelsFile(path, name) as file:
            for pair, answer in zip(pairs, given, strict=True):
                file.add(pair, answer)
    found = agreement(read_labels(path))
    assert (found.pairs, found.agreed, found.differ) == (3, 2, (pairs[1].id,))
    assert found.table["same"] == {"same": 1, "not the same": 1}
    assert found.kappa == pytest.approx(0.4)
    labels, differ = agreed_labels(read_labels(path))
    assert [label.pair_id for label in labels] == [pairs[0].id, pairs[2].id]
    assert differ == [pairs[1].id]
    assert len(agreed_labels(read_labels(path), "bob")[0]) == 3


def test_agreement_needs_two_labellers_with_common_pairs(made, tmp_path):
    _, _, pairs = made
    path = tmp_path / "l.jsonl"
    with LabelsFile(path, "ann") as file:
        file.add(pairs[0], "same")
    codes = []
    for names in ((None, None), ("ann", "eve")):
        with pytest.raises(InputError) as error:
            agreement(read_labels(path), *names)
        codes.append(error.value.code)
    with LabelsFile(path, "bob") as file:
        file.add(pairs[0], "skipped")
    with pytest.raises(InputError) as error:
        agreement(read_labels(path))
    assert [*codes, error.value.code] == ["labellers-two", "labeller-unknown", "labels-nothing-common"]


def test_a_review_counts_filters_and_labels(open_review):
    review = open_review()
    names = list(review.pairs)
    review.label(names[0], "same")
    review.label(names[1], "not the same", faults=["meaning"], note="two vases")
    assert review.counts() == {"pairs": 3, "same": 1, "not the same": 1, "skipped": 0, "open": 1}
    assert review.names("open") == names[2:]
    assert review.names("noted") == [names[1]]
    assert review.names("all", "rejected") == names[2:]
    assert review.undo()["item"]["answer"] is None
    with pytest.raises(InputError) as error:
        review.label("no such", "same")
    assert error.value.code == "pair-unknown"
    with pytest.raises(InputError) as error:
        Review([], review._labels)
    assert error.value.code == "pairs-missing"


def test_labels_are_one_json_object_a_line(open_review, tmp_path):
    review = open_review()
    review.label(next(iter(review.pairs)), "same", seconds=0.4)
    line = json.loads((tmp_path / "labels.jsonl").read_text())
    assert line["labeller"] == "ann"
    assert line["seconds"] == 0.4
    assert read_jsonl(tmp_path / "labels.jsonl") == [line]
