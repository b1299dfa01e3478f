"""Which rows each protocol takes: the published sizes and shares, and the arithmetic on any sizes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optaware.errors import InputError
from optaware.records import Protocol
from optaware.tasks import get_task, load_splits
from optaware.tasks._protocols import choose, permutation

FULL = {
    "copa": {"train": 400, "validation": 100},
    "cb": {"train": 250, "validation": 56},
    "rte": {"train": 2490, "validation": 277},
    "boolq": {"train": 9427, "validation": 3270},
    "arc-c-cloze": {"train": 1119, "validation": 299, "test": 1172},
    "arc-c-mc": {"train": 1119, "validation": 299, "test": 1172},
    "sst2": {"train": 67349, "validation": 872},
}
TABLE = [  # task, train, dev, test, majority share of the test rows in percent
    ("copa", 300, 100, 100, 55.0),
    ("cb", 150, 100, 56, 50.0),
    ("rte", 500, 500, 277, 52.7),
    ("boolq", 500, 500, 1000, 63.1),
    ("arc-c-cloze", 619, 500, 299, None),
    ("arc-c-mc", 619, 500, 299, None),
    ("sst2", 1000, 500, 872, 50.9),
]
MEZO = {"copa": 100, "cb": 100}


@pytest.mark.parametrize(("name", "train", "dev", "test"), [row[:4] for row in TABLE])
def test_oat_rows(name: str, train: int, dev: int, test: int) -> None:
    sizes = FULL[name]
    chosen = choose(get_task(name), Protocol(), sizes)
    assert chosen["train"] == ("train", list(range(train)))
    assert chosen["dev"] == ("train", list(range(sizes["train"] - dev, sizes["train"])))
    if name == "boolq":
        assert chosen["test"] == ("validation", np.random.RandomState(0).permutation(3270)[:1000].tolist())
    else:
        assert chosen["test"] == ("validation", list(range(test)))


@pytest.mark.parametrize("name", FULL)
def test_mezo_rows(name: str) -> None:
    """As MeZO's code draws them: one permutation by the seed, the dev rows at the end of what is taken."""
    sizes, dev = FULL[name], MEZO.get(name, 500)
    for seed in (0, 3):
        chosen = choose(get_task(name), Protocol(name="mezo", seed=seed), sizes)
        taken = np.random.RandomState(seed).permutation(sizes["train"])[: 1000 + dev].tolist()
        assert chosen["train"] == ("train", taken[:-dev])
        assert chosen["dev"] == ("train", taken[-dev:])
        expected = np.random.RandomState(seed).permutation(sizes["validation"])[:1000].tolist()
        assert chosen["test"] == ("validation", expected)


@pytest.mark.parametrize(("name", "train", "dev", "test", "majority"), TABLE)
def test_oat_on_the_data(name: str, train: int, dev: int, test: int, majority: float | None, full_data: Path) -> None:
    splits = load_splits(get_task(name), Protocol(), data_dir=full_data)
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (train, dev, test)
    assert splits.notes == ()
    assert splits.source.kind == "data-dir"
    assert splits.overlap["train/test"] == splits.overlap["dev/test"] == 0
    if majority is not None:
        assert round(100 * splits.majority_share("test"), 1) == majority
    else:
        # The published 27.4 % counts answer keys: 82 rows say "D". One row more has its right choice in the fourth
        # place under the key "4", and places are what a model predicts.
        keys = [example.fields["answerKey"] for example in splits.test]
        assert round(100 * keys.count("D") / len(keys), 1) == 27.4
        assert round(100 * splits.majority_share("test"), 1) == 27.8


def test_boolq_passages_carry_their_title(full_data: Path) -> None:
    splits = load_splits(get_task("boolq"), Protocol(), data_dir=full_data)
    assert splits.train[0].fields["passage"].startswith("Persian language -- Persian (")
    assert set(splits.source.sha256) == {"train", "validation", "train_titles", "validation_titles"}


def test_arc_has_rows_with_other_keys_and_counts(full_data: Path) -> None:
    splits = load_splits(get_task("arc-c-mc"), Protocol(), data_dir=full_data)
    rows = [*splits.train, *splits.dev, *splits.test]
    assert {len(row.fields["choices"]["text"]) for row in rows} == {3, 4, 5}
    numbered = [row for row in rows if row.fields["answerKey"] in "1234"]
    assert len(numbered) == 27
    task = get_task("arc-c-mc")
    for row in numbered:
        assert task.render(row).options == (" A", " B", " C", " D")
        assert row.fields["choices"]["label"][row.label] == row.fields["answerKey"]


@pytest.mark.parametrize("name", ["copa", "rte", "arc-c-cloze"])
def test_any_task_can_be_cut_freely(name: str, full_data: Path) -> None:
    protocol = Protocol(name="free", train=20, dev=10, test=15, seed=4)
    splits = load_splits(get_task(name), protocol, data_dir=full_data)
    assert (len(splits.train), len(splits.dev), len(splits.test)) == (20, 10, 15)
    assert splits.drawn_from == {"train": "train", "dev": "train", "test": "validation"}
    assert splits == load_splits(get_task(name), protocol, data_dir=full_data)
    other = load_splits(get_task(name), protocol.model_copy(update={"seed": 5}), data_dir=full_data)
    assert [row.id for row in other.train] != [row.id for row in splits.train]


counts = st.integers(min_value=1, max_value=400)


@given(counts, counts, counts, st.integers(min_value=0, max_value=2**40), st.booleans())
def test_free_rows_are_disjoint_and_in_range(train: int, dev: int, test: int, seed: int, single: bool) -> None:
    sizes = {"validation": 872} if single else {"train": 600, "validation": 300}
    protocol = Protocol(name="free", train=train, dev=dev, test=test, seed=seed)
    fits = train + dev + test <= 872 if single else train + dev <= 600 and test <= 300
    if not fits:
        with pytest.raises(InputError) as caught:
            choose(get_task("sst2"), protocol, sizes)
        assert caught.value.code == "too-few-rows"
        assert any(str(n) in str(caught.value) for n in sizes.values())
        return
    chosen = choose(get_task("sst2"), protocol, sizes)
    used = [(split, row) for split, rows in chosen.values() for row in rows]
    assert len(used) == len(set(used)) == train + dev + test
    assert all(0 <= row < sizes[split] for split, row in used)
    assert [len(rows) for _, rows in chosen.values()] == [train, dev, test]


def test_the_quickstart_uses_every_packaged_row() -> None:
    chosen = choose(get_task("sst2"), Protocol(name="free", train=128, dev=144, test=600), {"validation": 872})
    assert sorted(row for _, rows in chosen.values() for row in rows) == list(range(872))


def test_an_open_size_takes_what_is_left() -> None:
    sizes = {"train": 50, "validation": 20}
    chosen = choose(get_task("sst2"), Protocol(name="free", train=30), sizes)
    assert [len(rows) for _, rows in chosen.values()] == [30, 20, 20]
    with pytest.raises(InputError, match="sizes-missing"):
        choose(get_task("sst2"), Protocol(name="free", test=20), sizes)
    with pytest.raises(InputError, match="too-few-rows"):
        choose(get_task("sst2"), Protocol(name="free", train=50), sizes)


@pytest.mark.parametrize("size", [0, -3])
def test_sizes_are_positive(size: int) -> None:
    with pytest.raises(InputError, match="size-not-positive"):
        choose(get_task("sst2"), Protocol(name="free", train=size, dev=1, test=1), {"validation": 9})


def test_sizes_belong_to_free() -> None:
    with pytest.raises(InputError, match="protocol-sizes"):
        choose(get_task("copa"), Protocol(train=10), FULL["copa"])


@pytest.mark.parametrize("name", ["oat", "mezo"])
def test_published_protocols_need_their_splits(name: str) -> None:
    with pytest.raises(InputError, match="split-missing") as caught:
        choose(get_task("copa"), Protocol.model_validate({"name": name}), {"validation": 100})
    assert "validation (100 rows)" in str(caught.value)


def test_published_protocols_need_enough_rows() -> None:
    with pytest.raises(InputError) as caught:
        choose(get_task("boolq"), Protocol(), {"train": 999, "validation": 500})
    assert [problem.code for problem in caught.value.problems] == ["too-few-rows", "too-few-rows"]
    with pytest.raises(InputError, match="too-few-rows"):
        choose(get_task("copa"), Protocol(name="mezo"), {"train": 100, "validation": 100})


def test_no_global_random_state() -> None:
    np.random.seed(7)
    before = np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]
    permutation(100, 3)
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index, union-attr]
