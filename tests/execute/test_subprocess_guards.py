import os
import subprocess
import sys
from pathlib import Path

import pytest

from optaware.errors import InputError
from optaware.execute import Ray, Subprocess
from optaware.execute._ends import close_watch, open_watch, wait_for_end
from optaware.execute._gpus import visible_gpus
from optaware.execute._memory import available_bytes, tree_bytes
from optaware.execute._worker import outcome_of, travelling


def test_a_job_that_holds_too_much_memory_is_ended_and_failed(make_job, make_backend):
    big = make_job("big", "x = b'x' * 700_000_000; import time; time.sleep(600)")
    small = make_job("small", "print('acc=1')")
    outcomes = make_backend("subprocess", memory_limit_bytes=500_000_000).run([big, small], lambda event: None)
    assert [outcome.state for outcome in outcomes] == ["failed", "done"]
    assert "more than the limit of 0.50 GB" in outcomes[0].detail


@pytest.mark.parametrize(("number", "name"), [(9, "SIGKILL"), (40, "signal 40")])
def test_a_worker_that_a_signal_killed_is_told_by_its_name_or_number(tmp_path, number, name):
    outcome = outcome_of("job", -number, tmp_path / "log.txt")
    assert (outcome.state, outcome.detail) == ("failed", f"killed by {name}; ")


def test_gpus_are_shared_out_and_seen_one_by_one(make_job, make_backend):
    code = "import os, time; print('gpu', os.environ['CUDA_VISIBLE_DEVICES']); time.sleep(1); print('acc=1')"
    jobs = [make_job(f"gpu-{index}", code, seed=index) for index in range(2)]
    make_backend("subprocess", gpus=("0", "3")).run(jobs, lambda event: None)
    seen = {(job.log.parent / "output.txt").read_text("utf-8").split()[1] for job in jobs}
    assert seen == {"0", "3"}


@pytest.mark.parametrize(
    ("told", "found"), [("0,1", ("0", "1")), ("", ()), ("2,-1,3", ("2",)), ("GPU-ab, GPU-cd", ("GPU-ab", "GPU-cd"))]
)
def test_gpus_that_the_environment_names(told, found, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
    assert visible_gpus() == found


def test_gpus_that_the_driver_lists_and_none_without_it(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == ()
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 0\necho 1\n", "utf-8")
    program.chmod(0o755)
    assert visible_gpus() == ("0", "1")


def test_a_worker_that_is_told_to_stop_while_it_starts_is_stopped_and_not_failed(make_job, make_backend):
    started = []
    backend = make_backend("subprocess", should_stop=lambda: bool(started))
    outcomes = backend.run(
        [make_job("young", "import time; time.sleep(600)")], lambda event: started.append(event.kind)
    )
    assert [outcome.state for outcome in outcomes] == ["stopped"]


def test_a_reserve_that_is_never_free_lets_one_job_run_at_a_time(make_job, make_backend):
    running, most = set(), []

    def note(event):
        (running.add if event.kind == "start" else running.discard)(event.job.key)
        most.append(len(running))

    jobs = [make_job(f"one-{index}", "print('acc=1')", seed=index) for index in range(2)]
    outcomes = make_backend("subprocess", memory_reserve_bytes=1 << 60).run(
        jobs, lambda event: note(event) if event.kind in ("start", "end") else None
    )
    assert [outcome.state for outcome in outcomes] == ["done", "done"]
    assert max(most) == 1


def test_memory_counts_a_process_and_what_it_started():
    assert tree_bytes(os.getpid()) > 0
    assert tree_bytes(2**30) == 0
    assert available_bytes() > 0


def test_no_key_travels(monkeypatch):
    monkeypatch.setenv("OPTAWARE_API_KEY", "canary")
    monkeypatch.setenv("OPENAI_API_KEY", "canary")
    monkeypatch.setenv("OPTAWARE_DATA_DIR", "/data")
    assert travelling()["OPTAWARE_DATA_DIR"] == "/data"
    assert "canary" not in travelling().values()


def test_a_missing_extra_says_what_to_install(monkeypatch, make_job):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(InputError) as caught:
        Ray(1, lambda: False).run([make_job("x", "pass")], lambda event: None)
    assert caught.value.code == "extra-missing"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of the end of a child by a descriptor")
def test_the_end_of_a_child_is_noticed_and_a_running_one_is_not_taken_for_ended():
    command = [sys.executable, "-I", "-S", "-c", "input()"]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE) as first,
        subprocess.Popen(command, stdin=subprocess.PIPE) as second,
    ):
        watches = [open_watch(first.pid), None, open_watch(second.pid)]
        assert not wait_for_end(watches, 0.0)
        second.communicate(b"go\n")
        assert wait_for_end(watches, 60.0)
        assert not wait_for_end(watches[:2], 0.0)
        first.communicate(b"go\n")
        for watch in watches:
            close_watch(watch)


def test_without_such_descriptors_the_time_is_slept(monkeypatch):
    slept = []
    monkeypatch.setattr("time.sleep", slept.append)
    assert not wait_for_end([None, None], 0.25)
    assert slept == [0.25]


def test_no_descriptor_stays_open(make_job, make_backend):
    open_files = Path("/proc/self/fd")
    if not open_files.is_dir():
        pytest.skip("no /proc")
    before = len(list(open_files.iterdir()))
    make_backend("subprocess").run([make_job(f"j{i}", "print('acc=1')", seed=i) for i in range(2)], lambda event: None)
    assert len(list(open_files.iterdir())) <= before


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["run", "nowhere.yaml"], 2)])
def test_a_worker_ends_at_once_after_its_exit_handlers(arguments, code):
    """What is printed and registered comes through; only taking the interpreter apart (`__del__`) is left out."""
    text = (
        "import atexit, os, runpy, sys, optaware.cli\nmain = optaware.cli.main\n"
        "class Kept:\n    def __del__(self, write=os.write): write(1, b'taken apart')\n"
        "kept = Kept()\n"
        "optaware.cli.main = lambda: (atexit.register(print, 'handler'), main())\n"
        f"sys.argv = ['optaware', *{arguments!r}]\nrunpy.run_module('optaware', run_name='__main__')"
    )
    ends = {}
    for worker in (False, True):
        added = {"OPTAWARE_PARENT_PID": str(os.getpid())} if worker else {}
        done = subprocess.run(
            [sys.executable, "-c", text], env={**os.environ, **added}, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, done.stderr
        assert bool(code) == ("error: " in done.stderr)
        ends[worker] = done.stdout
    assert "taken apart" in ends[False]
    assert "taken apart" not in ends[True]
    assert "handler" in ends[True]


def _needs_room(monkeypatch, tmp_path, most):
    """Workers in whose place a script runs: a device on which `most` have room at once; more end as `optaware` does."""
    held = tmp_path / "held"
    held.mkdir()
    code = (
        "import os, pathlib, sys, time\n"
        "held = pathlib.Path(sys.argv[1]); mine = held / str(os.getpid()); mine.touch(); time.sleep(0.4)\n"
        "full = len(list(held.iterdir())) > int(sys.argv[2])\n"
        "time.sleep(0 if full else 2); mine.unlink(); sys.exit(4 if full else 0)\n"
    )
    monkeypatch.setattr(
        "optaware.execute._subprocess.command_line", lambda job: [sys.executable, "-c", code, str(held), str(most)]
    )


def test_jobs_without_room_beside_others_run_later_with_fewer_at_once(make_job, monkeypatch, tmp_path):
    _needs_room(monkeypatch, tmp_path, most=1)
    jobs = [make_job(f"j{number}", "pass") for number in range(3)]
    events = []
    outcomes = Subprocess(3, lambda: False).run(jobs, events.append)
    assert [outcome.state for outcome in outcomes] == ["done"] * 3, outcomes
    later = [event.job.key for event in events if event.kind == "later"]
    assert 1 <= len(later) <= 3
    assert sum(event.kind == "end" for event in events) == 3


def test_a_job_that_finds_no_room_alone_has_failed(make_job, monkeypatch, tmp_path):
    _needs_room(monkeypatch, tmp_path, most=0)
    events = []
    outcomes = Subprocess(2, lambda: False).run([make_job(f"j{number}", "pass") for number in range(2)], events.append)
    assert [outcome.state for outcome in outcomes] == ["failed"] * 2, outcomes
    assert sum(event.kind == "later" for event in events) <= 2


def test_jobs_on_other_gpus_are_not_beside(make_job, monkeypatch, tmp_path):
    _needs_room(monkeypatch, tmp_path, most=0)
    events = []
    Subprocess(2, lambda: False, gpus=("0", "1")).run([make_job("a", "pass"), make_job("b", "pass")], events.append)
    assert not [event for event in events if event.kind == "later"]
