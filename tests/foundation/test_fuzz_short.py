"""The short form of `benchmarks/torture/fuzz.py`, and every input that a campaign found."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from optaware.errors import OptawareError

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parents[1] / "benchmarks" / "torture")]

from _fuzz_engine import mutations  # noqa: E402
from _fuzz_targets import targets  # noqa: E402

TARGETS = targets()
FOUND = sorted((HERE / "fuzz_found").glob("*/*.bin"))


def survives(name: str, inputs, folder: Path) -> None:
    run = TARGETS[name].prepare(folder)
    for data in inputs:
        problems = []
        try:
            run(data)
        except OptawareError as error:
            problems = error.problems or [None]
        assert all(problem and problem.code and problem.why and problem.next for problem in problems)


@pytest.mark.parametrize("name", TARGETS)
def test_mutated_files_end_in_documented_errors_only(name: str, tmp_path: Path) -> None:
    # Always the same inputs: what a change breaks is then told apart from what the campaigns, with new seeds, find.
    made = mutations(TARGETS[name], seed=7)
    survives(name, (next(made) for _ in range(8 * TARGETS[name].share)), tmp_path)


@pytest.mark.parametrize("name", TARGETS)
def test_there_is_a_seed_that_is_accepted(name: str, tmp_path: Path) -> None:
    run = TARGETS[name].prepare(tmp_path)
    run(TARGETS[name].seeds[0])


@pytest.mark.parametrize("path", FOUND, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_what_was_found_stays_mended(path: Path, tmp_path: Path) -> None:
    survives(path.parent.name, [path.read_bytes()], tmp_path)
