"""What every backend must do, asked of each of them with the same jobs."""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest

PROCESSES = [
    "subprocess",
    pytest.param("ray", marks=pytest.mark.ray),
    "slurm",
]
BACKENDS = ["in-process", *PROCESSES]

# Ray's and submitit's own threads and files are theirs to close; what they warn about is not ours to mend.
pytestmark = pytest.mark.filterwarnings("default")


@pytest.mark.parametrize("name", BACKENDS)
def test_jobs_end_as_they_ended_and_in_the_order_given(name, make_job, make_backend, result_of):
    jobs = [
        make_job("good", "print('acc=0.75')"),
        make_job("fails", "import sys; print('no such flag'); sys.exit(2)"),
        make_job("silent", "print('nothing measured')"),
        make_job("also-good", "print('acc=0.5')", threads=2),
    ]
    events = []
    outcomes = make_backend(name).run(jobs, events.append)
    assert [outcome.key for outcome in outcomes] == [job.key for job in jobs]
    assert [outcome.state for outcome in outcomes] == ["done", "failed", "failed", "done"]
    assert "script-failed" in outcomes[1].detail
    assert "exit code 2" in outcomes[1].detail
    assert "metric-missing" in outcomes[2].detail
    assert [result_of(job) for job in jobs] == [0.75, None, None, 0.5]
    assert [event.job.key for event in events if event.kind == "end"].count(jobs[0].key) == 1
    assert (jobs[1].log.parent / "output.txt").read_text("utf-8") == "no such flag\n"
    # What is done is not done again; what failed is.
    stamp = (jobs[0].log.parent / "result.json").stat().st_mtime_ns
    again = make_backend(name).run(jobs[:2], events.append)
    assert [outcome.state for outcome in again] == ["done", "failed"]
    assert (jobs[0].log.parent / "result.json").stat().st_mtime_ns == stamp


@pytest.mark.parametrize("name", BACKENDS)
def test_a_stop_ends_what_runs_and_begins_nothing_more(name, tmp_path, make_job, make_backend):
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    code = (
        f"import pathlib, time; pathlib.Path({str(begun)!r}).touch(); time.sleep({0 if name == 'in-process' else 600});"
        f"pathlib.Path({str(ended)!r}).touch()"
    )
    jobs = [make_job(f"long-{index}", code + f"; print('acc={index}')") for index in range(4)]
    outcomes = make_backend(name, begun.exists).run(jobs, lambda event: None)
    assert [outcome.state for outcome in outcomes[2:]] == ["stopped", "stopped"]
    if name != "in-process":
        assert {outcome.state for outcome in outcomes} == {"stopped"}, outcomes
        while _alive(str(begun)):  # what was killed is gone as soon as the machine finds time for it
            time.sleep(0.05)
        assert not ended.exists()


def _alive(needle):
    return [words for _, words in _processes() if len(words) > 2 and words[1] == "-c" and needle in words[2]]


def _processes():
    """Id and words of every process that can be seen."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                yield int(entry.name), (entry / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")


@pytest.mark.parametrize("name", PROCESSES)
def test_a_job_whose_worker_is_killed_is_done_by_another(name, tmp_path, make_job, make_backend, result_of):
    tries = tmp_path / "tries"
    # The first attempt waits to be killed; the second goes through.
    code = (
        "import os, pathlib, time\n"
        f"tries = pathlib.Path({str(tries)!r})\n"
        "first = not tries.exists()\n"
        "tries.touch()\n"
        "time.sleep(60 if first else 0)\n"
        "print('acc=0.25')"
    )
    jobs = [make_job("killed", code), make_job("beside", "print('acc=1')")]
    killed = []

    def should_stop():
        if tries.exists() and not killed:
            killed.append(_kill_worker(name, jobs[0]))
        return False

    events = []
    outcomes = make_backend(name, should_stop).run(jobs, events.append)
    assert [outcome.state for outcome in outcomes] == ["done", "done"], outcomes
    assert result_of(jobs[0]) == 0.25
    assert any(killed)
    assert any(event.kind == "retry" and event.job.key == jobs[0].key for event in events)


def _kill_worker(name, job):
    """Kill the process that the backend watches: its own child, Ray's worker, submitit's process."""
    if name == "ray":
        pid = int((job.log.parent / "ray-worker.txt").read_text("utf-8"))
    elif name == "slurm":
        pid = _parent(_parent(_worker(job)))
    else:
        pid = _worker(job)
    os.kill(pid, signal.SIGKILL)
    return pid


def _worker(job):
    """The process that runs `optaware plan script` for this job."""
    return next(pid for pid, words in _processes() if "optaware" in words and job.arguments[2] in words)


def _parent(pid):
    return int(Path(f"/proc/{pid}/stat").read_text("utf-8").rsplit(")", 1)[1].split()[1])


@pytest.mark.parametrize("name", PROCESSES)
def test_a_job_that_takes_too_long_is_ended_and_failed(name, make_job, make_backend):
    job = make_job("slow", "import time; time.sleep(600)", timeout_s=4)
    (outcome,) = make_backend(name).run([job], lambda event: None)
    assert outcome.state == "failed"
    assert "longer than 4 s" in outcome.detail
