from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from optaware.assets import _pull
from optaware.assets._finished import MARK, finished_folder
from optaware.assets._manifest import AssetSpec
from optaware.assets._pull import PullEvent, pull_spec
from optaware.errors import AssetError, IntegrityError

_CHILD = """
import os, signal, sys
from pathlib import Path
from optaware.assets import _pull
from optaware.assets._manifest import AssetSpec

spec = AssetSpec.model_validate_json(Path(sys.argv[1]).read_text())
mode = sys.argv[3]

def tell(event):
    if event.stage == "fetch":
        print("fetch", event.done, flush=True)
        if mode == "wait" and event.done == 0:
            sys.stdin.readline()
        if mode == "die-fetching" and event.done == 1:
            os.kill(os.getpid(), signal.SIGKILL)

if mode == "die-placing":
    _pull._swap = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
print("started", flush=True)
print("done", _pull.pull_spec(spec, Path(sys.argv[2]), tell), flush=True)
"""


def start(index, cache: Path, mode: str) -> subprocess.Popen[str]:
    spec = cache.parent / "spec.json"
    spec.write_text(index.spec.model_dump_json())
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(spec), str(cache), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def left_over(cache: Path) -> list[str]:
    """Files below the cache that are neither locks nor a finished asset."""
    files = (path.relative_to(cache / "assets") for path in (cache / "assets").rglob("*") if path.is_file())
    return sorted(str(path) for path in files if path.parts[0] not in (".locks", "toy"))


def test_pip_brings_the_wheels_and_nothing_of_them_runs(pip_index, tmp_path) -> None:
    events: list[PullEvent] = []
    folder = pull_spec(pip_index.spec, tmp_path / "cache", events.append)
    assert folder == tmp_path / "cache" / "assets" / "toy"
    assert sorted(path.name for path in folder.iterdir()) == [MARK, "data.bin"]
    assert (folder / "data.bin").read_bytes() == pip_index.payload
    assert [event.stage for event in events] == ["fetch", "fetch", "fetch", "check", "done"]
    assert str(events[1]) == "toy: fetching toy-part2==1.0 (2 of 3)"
    assert left_over(tmp_path / "cache") == []
    mark = json.loads((folder / MARK).read_text())
    assert mark["source"] == "package:toy-part1..part3==1.0"
    assert mark["files"] == {"data.bin": {"bytes": len(pip_index.payload), "sha256": pip_index.spec.sha256}}


def test_a_finished_asset_is_not_touched_again(index, client, tmp_path) -> None:
    folder = pull_spec(index.spec, tmp_path)
    before = (folder / MARK).stat().st_mtime_ns
    shutil.rmtree(index.folder)
    shutil.rmtree(tmp_path / "assets" / ".locks")
    assert pull_spec(index.spec, tmp_path) == folder
    assert (folder / MARK).stat().st_mtime_ns == before
    assert not (tmp_path / "assets" / ".locks").exists(), "a read-only cache must do"


def test_what_was_brought_is_kept_when_the_client_says_no(pip_index, tmp_path) -> None:
    [second] = pip_index.folder.glob("toy_part2-*")
    aside = second.rename(tmp_path / second.name)
    with pytest.raises(AssetError, match=r"toy-part2==1\.0.*No matching distribution.*asset-not-fetched") as caught:
        pull_spec(pip_index.spec, tmp_path / "cache")
    assert type(caught.value) is AssetError
    assert finished_folder(pip_index.spec, tmp_path / "cache" / "assets") is None
    shutil.move(aside, second)
    fetched: list[int] = []
    pull_spec(pip_index.spec, tmp_path / "cache", lambda event: event.stage == "fetch" and fetched.append(event.done))
    assert fetched == [1, 2]


def test_a_part_damaged_in_between_is_fetched_again(index, client, tmp_path) -> None:
    def stop_at_third(package) -> None:
        if package.name == "toy-part3":
            raise KeyboardInterrupt

    client.before = stop_at_third
    with pytest.raises(KeyboardInterrupt):
        pull_spec(index.spec, tmp_path)
    assert left_over(tmp_path) == [".work/toy/raw/data.bin"]
    raw = tmp_path / "assets" / ".work" / "toy" / "raw" / "data.bin"
    data = bytearray(raw.read_bytes())
    data[0] ^= 1
    raw.write_bytes(data)
    client.before, client.brought[:] = lambda package: None, []
    folder = pull_spec(index.spec, tmp_path)
    assert client.brought == ["toy-part1", "toy-part3"]
    assert (folder / "data.bin").read_bytes() == index.payload


def test_a_wheel_with_another_hash_is_refused(pip_index, tmp_path) -> None:
    entry = pip_index.spec.to_json()
    true, entry["packages"][0]["sha256"] = entry["packages"][0]["sha256"], "a" * 64
    with pytest.raises(IntegrityError, match="asset-wrong-hash") as caught:
        pull_spec(AssetSpec.model_validate(entry), tmp_path / "cache")
    assert true in str(caught.value)
    assert "a" * 64 in str(caught.value)
    assert left_over(tmp_path / "cache") == []


def test_a_payload_with_another_hash_is_refused(index, client, tmp_path) -> None:
    entry = index.spec.to_json()
    true, entry["files"][0]["sha256"] = entry["files"][0]["sha256"], "b" * 64
    with pytest.raises(IntegrityError, match=f"{true}.*{'b' * 64}"):
        pull_spec(AssetSpec.model_validate(entry), tmp_path)
    assert left_over(tmp_path) == []
    assert not (tmp_path / "assets" / "toy").exists()


def test_a_member_with_another_hash_is_refused_and_fetched_again_later(index, client, tmp_path) -> None:
    entry = index.spec.to_json()
    entry["packages"][0]["parts"][0]["sha256"] = "c" * 64
    with pytest.raises(IntegrityError, match="c" * 64):
        pull_spec(AssetSpec.model_validate(entry), tmp_path)
    client.brought.clear()
    pull_spec(index.spec, tmp_path)
    assert finished_folder(index.spec, tmp_path / "assets") is not None


@pytest.mark.parametrize("mode", ["die-fetching", "die-placing"])
def test_a_kill_leaves_nothing_that_looks_finished(pip_index, tmp_path, mode: str) -> None:
    cache = tmp_path / "cache"
    child = start(pip_index, cache, mode)
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    assert not (cache / "assets" / "toy").exists()
    fetched: list[int] = []
    folder = pull_spec(pip_index.spec, cache, lambda event: event.stage == "fetch" and fetched.append(event.done))
    # The copy recipe moves the file, so a kill after that costs the download.
    assert fetched == ([1, 2] if mode == "die-fetching" else [0, 1, 2])
    assert (folder / "data.bin").read_bytes() == pip_index.payload
    assert left_over(cache) == []


def test_of_two_processes_one_fetches_and_the_other_waits(pip_index, tmp_path) -> None:
    first = start(pip_index, tmp_path / "cache", "wait")
    assert first.stdout is not None
    assert [first.stdout.readline() for _ in range(2)] == ["started\n", "fetch 0\n"]
    second = start(pip_index, tmp_path / "cache", "go")
    assert second.stdout is not None
    assert second.stdout.readline() == "started\n"
    out, _ = first.communicate("go\n")
    assert out.splitlines()[-1] == f"done {tmp_path / 'cache' / 'assets' / 'toy'}"
    out, _ = second.communicate()
    assert out.splitlines() == [f"done {tmp_path / 'cache' / 'assets' / 'toy'}"], (
        "it found the folder, without fetching"
    )
    assert first.returncode == second.returncode == 0


def test_a_shrunk_or_outdated_folder_is_made_again(index, client, tmp_path) -> None:
    folder = pull_spec(index.spec, tmp_path)
    (folder / "data.bin").write_bytes(b"")
    assert finished_folder(index.spec, tmp_path / "assets") is None
    pull_spec(index.spec, tmp_path)
    assert (folder / "data.bin").read_bytes() == index.payload
    entry = index.spec.to_json() | {"title": "Another"}
    newer = AssetSpec.model_validate(entry)
    assert finished_folder(newer, tmp_path / "assets") is None
    pull_spec(newer, tmp_path)
    assert len(client.brought) == 9
    assert left_over(tmp_path) == []


@pytest.mark.parametrize("mark", ["{", "[]", '{"files": 3}', '{"files": {"data.bin": 1}}'])
def test_an_unreadable_mark_is_no_mark(index, client, tmp_path, mark: str) -> None:
    folder = pull_spec(index.spec, tmp_path)
    (folder / MARK).write_text(mark)
    assert finished_folder(index.spec, tmp_path / "assets") is None


def test_a_folder_of_someone_else_is_left_alone(index, client, tmp_path) -> None:
    theirs = tmp_path / "assets" / "toy"
    theirs.mkdir(parents=True)
    (theirs / "thesis.txt").write_text("precious")
    with pytest.raises(AssetError, match="folder-in-the-way"):
        pull_spec(index.spec, tmp_path)
    assert (theirs / "thesis.txt").read_text() == "precious"
    assert client.brought == []


def test_a_full_disk_is_said_before_anything_is_fetched(index, client, tmp_path, monkeypatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(_pull.shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(AssetError, match=r"OPTAWARE_CACHE.*no-space"):
        pull_spec(index.spec, tmp_path)
    assert client.brought == []
