from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from designing import PAPER, Bench, copa_rows

from optaware.paper import read_paper
from optaware.records import Example
from optaware.tasks import get_task


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    path = tmp_path / "zig.md"
    path.write_text(PAPER)
    return path


@pytest.fixture
def make_bench(tmp_path: Path, paper: Path) -> Callable[..., Bench]:
    def make(task: str = "copa", rows: Sequence[Example] | None = None) -> Bench:
        chosen = get_task(task)
        own = copa_rows(chosen, 12) if rows is None else rows
        return Bench(chosen, own, read_paper(paper), tmp_path / "build", tmp_path / "cache")

    return make


@pytest.fixture
def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench()
