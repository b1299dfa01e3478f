"""The project's own labelled pairs: well-formed, about rows that exist, and what their card says of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from optaware._io import text_sha256
from optaware.data.judge import packaged_labels
from optaware.data.review import pair_id, read_labels
from optaware.errors import InputError

NAMES = {"COPA": "copa", "CB": "cb", "RTE": "rte", "BoolQ": "boolq", "ARC-Challenge": "arc-c-cloze", "SST-2": "sst2"}


@pytest.mark.parametrize(("title", "name"), NAMES.items())
def test_labels_are_what_the_card_says(title, name):
    labels = read_labels(packaged_labels(name))
    card = (Path(packaged_labels(name)).parent / "README.md").read_text("utf-8")
    row = re.search(rf"^\| {title} \| (.*) \|$", card, re.MULTILINE).group(1).split(" | ")
    assert list(map(int, row[:5])) == [
        len(labels),
        sum(label.verdict == "same" for label in labels),
        sum(label.verdict == "not the same" for label in labels),
        sum("qwen" in label.origin for label in labels),
        sum(label.origin == "by hand" for label in labels),
    ]
    assert len({label.pair_id for label in labels}) == len(labels)
    for label in labels:
        assert label.original is None  # the rows themselves are not copied
        assert label.example_id.startswith(f"{name}/train/")
        assert label.verdict == "same" or label.faults
        assert re.fullmatch("[0-9a-f]{64}", label.original_sha256)


def test_other_tasks_have_no_packaged_labels():
    with pytest.raises(InputError) as error:
        packaged_labels("../secret")
    assert error.value.code == "labels-missing"


@pytest.mark.parametrize("name", NAMES.values())
def test_ids_and_hashes_find_the_originals_where_the_official_splits_are(name):
    from optaware.data.review import RowFinder
    from optaware.tasks import get_task

    task = get_task(name)
    find = RowFinder(task)
    labels = read_labels(packaged_labels(name))
    try:
        find(labels[0].example_id, "labels")
    except InputError:
        pytest.skip("the official train split is not here (OPTAWARE_DATA_DIR)")
    for label in labels:
        original = task.span_text(find(label.example_id, "labels"))
        assert text_sha256(original) == label.original_sha256
        assert pair_id(name, label.example_id, original, label.rewritten) == label.pair_id
