"""The power goes, or the process dies, at every single change that the write layer makes to the disk.

The short form of `benchmarks/torture/disk.py`, which does the same to whole studies.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from optaware import _io

TORTURE = Path(__file__).parents[2] / "benchmarks" / "torture"
pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None or not sys.platform.startswith("linux"), reason="the shim needs a C compiler and Linux"
)

WORK = """
import os, sys
from pathlib import Path
root, mode, at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
from _disk import arm
from optaware import _io
done = 0
def mark():
    global done
    done += 1
    (root / f"mark-{done}").mkdir()
def work():
    with _io.lock(root / "deep" / ".lock"):
        _io.write_json(root / "deep" / "er" / "a.json", {"n": 1}); mark()
    _io.write_json(root / "deep" / "er" / "a.json", {"n": 2}); mark()
    with _io.JsonlAppender(root / "new" / "b.jsonl") as rows:
        for n in range(3):
            rows.append({"n": n, "text": "x" * 50}); mark()
    (root / "half").mkdir()
    for name in "ab":
        (root / "half" / name).write_text(name)
    _io.publish_folder(root / "half", root / "whole"); mark()
log = os.open(f"{root}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
root.mkdir(exist_ok=True)
arm(root, mode, at, log=log)
work()
"""


@pytest.fixture(scope="module")
def disk() -> Any:
    sys.path.insert(0, str(TORTURE))
    try:
        import _disk
    finally:
        sys.path.remove(str(TORTURE))
    return _disk


@pytest.fixture(scope="module")
def run(disk: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Do the work in a process whose changes to a folder go through the shim; returns its exit code."""
    library = disk.build(tmp_path_factory.mktemp("shim"))
    path = os.pathsep.join([str(TORTURE), *sys.path])

    def call(root: Path, mode: str, at: int = 0) -> int:
        command = [sys.executable, "-c", WORK, str(root), mode, str(at)]
        environment = {**os.environ, "LD_PRELOAD": str(library), "PYTHONPATH": path}
        return subprocess.run(command, env=environment, check=False, timeout=120).returncode

    return call


def see_whole(root: Path, done: int) -> None:
    """Whatever was said to be written is there; nothing is there in part."""
    if done >= 1 or (root / "deep" / "er" / "a.json").exists():
        found = _io.read_json(root / "deep" / "er" / "a.json")["n"]
        assert found in ({2} if done >= 2 else {1, 2})
    rows = root / "new" / "b.jsonl"
    if done >= 3 or rows.exists():
        assert [row["n"] for row in _io.read_jsonl(rows, torn_tail=True)][: done - 2] == [0, 1, 2][: max(0, done - 2)]
        _io.JsonlAppender(rows).close()
        assert [row["n"] for row in _io.read_jsonl(rows)] in ([], [0], [0, 1], [0, 1, 2])
    if done >= 6 or (root / "whole").exists():
        assert [(root / "whole" / name).read_text() for name in "ab"] == ["a", "b"]


def test_what_was_written_outlasts_the_power(disk: Any, run: Any, tmp_path: Path) -> None:
    root = tmp_path / "root"
    assert run(root, "log") == 0
    changes = disk.read_changes(Path(f"{root}.log"))
    assert len(changes) > 30
    for point in range(len(changes) + 1):
        state = disk.Disk(root)
        for change in changes[:point]:
            state.apply(change)
        done = sum(change.kind == "m" and "mark-" in change.path for change in changes[:point])
        for kept in ("none", "some", "all"):
            found = tmp_path / f"{point}-{kept}"
            state.write(found, random.Random(point), kept)
            see_whole(found, done)
            shutil.rmtree(found)


def test_a_kill_at_every_change_leaves_what_was_written(disk: Any, run: Any, tmp_path: Path) -> None:
    at, code = 0, -9
    while code != 0:
        at += 1
        root = tmp_path / f"killed-{at}"
        code = run(root, "kill", at)
        assert code in (-9, 0)
        see_whole(root, len(list(root.glob("mark-*"))))
        _io.remove_half_files(root / "deep" / "er")
        assert not list(root.rglob(".tmp-*"))
    assert at > 30
