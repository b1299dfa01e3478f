from __future__ import annotations

import dataclasses
import math
import struct
from pathlib import Path

import pytest

from optaware.errors import IntegrityError
from optaware.records import MeZO
from optaware.train import _journal
from optaware.train._batches import BatchOrder, split
from optaware.train._journal import HEADER_1, MAGIC, Journal, JournalHeader, read_journal
from optaware.train._seeds import derive_seed, generator

HEAD = JournalHeader(spec="12" * 32, base="ab" * 32, seed=-5, method=MeZO(queries=2).to_json(), steps=9, settle_every=3)


def write(path: Path, steps: int, start: int = 0) -> None:
    journal = Journal(path, HEAD, start)
    for step in range(start, steps):
        journal.append((step + 0.5, math.inf))
    journal.close()


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write(tmp_path / "j", 3)
    head, steps = read_journal(tmp_path / "j")
    assert head == HEAD
    assert [pair[0] for pair in steps] == [0.5, 1.5, 2.5]
    assert all(math.isnan(pair[1]) for pair in steps)


def test_a_new_journal_outlasts_a_power_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(_journal, "sync_folder", synced.append)
    write(tmp_path / "j", 3)
    assert synced == [tmp_path]  # its name too is on the disk before a checkpoint counts on it


def test_a_torn_tail_is_left_out_and_cut_on_resume(tmp_path: Path) -> None:
    write(tmp_path / "j", 3)
    whole = (tmp_path / "j").read_bytes()
    for lost in range(1, 8):
        (tmp_path / "j").write_bytes(whole[:-lost])
        assert len(read_journal(tmp_path / "j")[1]) == 2
    write(tmp_path / "j", 3, start=2)
    assert (tmp_path / "j").read_bytes() == whole
    write(tmp_path / "j", 1, start=1)
    assert len(read_journal(tmp_path / "j")[1]) == 1


def test_twenty_thousand_probes_take_less_than_a_tenth_of_a_megabyte(tmp_path: Path) -> None:
    write(tmp_path / "j", 10_000)
    assert (tmp_path / "j").stat().st_size == len(HEAD.pack()) + 80_000 < 100_000


def test_a_journal_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "j"
    write(path, 3)
    whole = path.read_bytes()
    for damaged, why in (
        (b"something else", "begin"),
        (whole[:8] + b"\x63\x00" + whole[10:], "version is 99"),
        (whole[:40], "within its header"),
        (whole[:12] + b"x" + whole[13:], "damaged"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(IntegrityError, match=why):
            read_journal(path)
    path.write_bytes(whole)
    with pytest.raises(IntegrityError, match="fewer than the 4 steps"):
        Journal(path, HEAD, 4)
    for changes, why in (({"spec": "13" * 32}, "another spec"), ({"base": "cd" * 32}, "base weights .base abab")):
        with pytest.raises(IntegrityError, match=why):
            Journal(path, dataclasses.replace(HEAD, **changes), 2)
    assert HEAD.difference(dataclasses.replace(HEAD, device="cuda", platform="x")) == ""


def test_journals_of_the_first_version_are_read(tmp_path: Path) -> None:
    head = HEADER_1.pack(MAGIC, 1, HEADER_1.size, 2, -5, 1e-6, 1e-3, bytes.fromhex("12" * 32), bytes.fromhex("ab" * 32))
    (tmp_path / "j").write_bytes(head + struct.pack("<5f", 1, 2, 3, 4, 5))
    header, steps = read_journal(tmp_path / "j")
    assert (header.version, header.spec, header.base, header.seed) == (1, "12" * 32, "ab" * 32, -5)
    assert (header.config.lr, header.config.eps, steps) == (1e-6, 1e-3, [(1, 2), (3, 4)])


def test_the_length_of_a_step_follows_the_query_schedule(tmp_path: Path) -> None:
    method = MeZO(queries=3, query_schedule="linear").to_json()
    head = dataclasses.replace(HEAD, method=method, steps=5)
    values = [(0.0,), (1.0, 2.0), (3.0, 4.0), (5.0, 6.0), (7.0, 8.0, 9.0)]
    journal = Journal(tmp_path / "j", head, 0)
    for each in values:
        journal.append(each)
    journal.close()
    assert read_journal(tmp_path / "j")[1] == values
    Journal(tmp_path / "j", head, 3).close()
    assert read_journal(tmp_path / "j")[1] == values[:3]


def test_every_epoch_shows_every_row_once_in_an_order_of_its_own() -> None:
    order = BatchOrder(7, 3, seed=1)
    seen = [index for step in range(1, 15) for index in order.batch(step)]
    epochs = [seen[start : start + 7] for start in range(0, 42, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6
    assert order.batch(3) == BatchOrder(7, 3, seed=1).batch(3)
    assert order.batch(3) != BatchOrder(7, 3, seed=2).batch(3)


def test_a_batch_larger_than_the_data_goes_on_into_the_next_epoch() -> None:
    assert sorted(BatchOrder(2, 5, seed=0).batch(1)[:4]) == [0, 0, 1, 1]


def test_parts_cover_the_batch_in_order() -> None:
    assert split([1, 2, 3, 4, 5], 2) == [[1, 2, 3], [4, 5]]
    assert split([1, 2], 4) == [[1], [2]]


def test_seeds_tell_apart_what_they_are_made_of() -> None:
    made = [derive_seed(*parts) for parts in ((0, 1), (1, 0), (0, "1"), ("0", 1), ("0\x1fint:1",), (0,), (0, 1, 0))]
    assert len(set(made)) == len(made)
    assert all(0 <= seed < 2**64 for seed in made)
    assert generator(made[0]).initial_seed() == made[0]
