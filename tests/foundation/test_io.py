import json
import resource
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optaware import _io
from optaware.errors import InputError, StorageError


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("2E5", 2e5),
        ("1.5", 1.5),
        (".5", 0.5),
        ("-3", -3),
        ("1_000", 1000),
        ("no", "no"),
        ("on", "on"),
        ("0123", "0123"),
        ("2024-01-01", "2024-01-01"),
        ("true", True),
        ("True", "True"),
        ("null", None),
        ("~", None),
    ],
)
def test_yaml_scalars_are_what_they_look_like(text, value):
    read = _io.read_yaml(f"a: {text}")["a"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("text", ["a: 1\na: 2", "a: [1", "!!python/object:os.system x", "? [1, 2]\n: 3"])
def test_bad_yaml_is_an_input_error(text):
    with pytest.raises(InputError) as caught:
        _io.read_yaml(text, name="x.yaml")
    assert caught.value.code == "malformed"


def test_jsonl_reports_every_bad_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\nnot json\n{"a": 2}\n\xff\xfe\n')
    with pytest.raises(InputError) as caught:
        _io.read_jsonl(path)
    assert [problem.where for problem in caught.value.problems] == [f"{path}:2", f"{path}:4"]


def test_a_torn_tail_is_left_out_only_where_asked(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n{"a"')
    assert _io.read_jsonl(path, torn_tail=True) == [{"a": 1}]
    with pytest.raises(InputError):
        _io.read_jsonl(path)


@given(st.lists(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=8)), max_size=6), st.data())
def test_appending_after_a_cut_anywhere_keeps_every_whole_row(rows, data):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        with _io.JsonlAppender(path, sync=False) as appender:
            for row in rows:
                appender.append(row)
        whole = path.read_bytes()
        cut = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:cut])
        with _io.JsonlAppender(path, sync=False) as appender:
            appender.append("end")
        kept = whole[:cut].count(b"\n")
        assert _io.read_jsonl(path) == [*rows[:kept], "end"]


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "file.bin"
    _io.write_bytes(path, b"old")

    def chunks():
        yield b"new"
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError):
        _io.write_bytes(path, chunks())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_full_disk_is_a_storage_error_with_advice(tmp_path):
    appender = _io.JsonlAppender(tmp_path / "x.jsonl")
    appender.close()
    with Path("/dev/full").open("ab", buffering=0) as appender._file, pytest.raises(StorageError, match="space"):
        appender.append({"a": 1})


def test_a_lock_is_exclusive_and_dies_with_its_holder(tmp_path):
    path = tmp_path / "lock"
    code = (
        "import sys, pathlib; from optaware._io import lock\n"
        "with lock(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout.readline() == "held\n"
        with _io.lock(path, wait=False) as mine:
            assert not mine
        holder.kill()
        holder.wait()
    with _io.lock(path, wait=False) as mine:
        assert mine


def test_canonical_json_is_one_text_per_value():
    assert _io.canonical_json({"b": 1, "a": [1.0, "é"]}) == '{"a":[1.0,"é"],"b":1}'
    with pytest.raises(ValueError):
        _io.canonical_json(float("nan"))


@given(st.text())
def test_text_survives_writing(text):
    assert json.loads(_io.dumps(text)) == text


def test_half_files_of_dead_writers_are_removed_and_those_of_living_ones_stay(tmp_path):
    command = [sys.executable, "-c", f"import os, sys; sys.path[:0] = {sys.path!r}\n{_DIES_WHILE_WRITING}", tmp_path]
    assert subprocess.run(command, check=False).returncode == -9
    (left,) = tmp_path.glob(".tmp-*")

    def chunks():
        _io.remove_half_files(tmp_path)
        yield b"whole"

    _io.write_bytes(tmp_path / "file", chunks())
    assert (tmp_path / "file").read_bytes() == b"whole"
    assert not left.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


_DIES_WHILE_WRITING = """
from pathlib import Path
from optaware import _io
def chunks():
    yield b"half"
    os.kill(os.getpid(), 9)
_io.write_bytes(Path(sys.argv[1]) / "file", chunks())
"""


def test_a_row_that_did_not_fit_leaves_nothing_of_itself(tmp_path):
    path = tmp_path / "rows.jsonl"
    with _io.JsonlAppender(path) as rows:
        rows.append({"a": 1})
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (16, limits[1]))  # the next row fits in part
        try:
            with pytest.raises(StorageError):
                rows.append({"b": "x" * 40})
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, ignored)
        assert path.read_text() == '{"a": 1}\n'
        rows.append({"c": 3})
    assert _io.read_jsonl(path) == [{"a": 1}, {"c": 3}]
