"""Kill whole studies at random moments, resume them, and see that nothing was lost, paid twice or left behind.

A study (rewriting and judging by an endpoint on this machine, training by three methods, evaluation, report) is begun,
killed by SIGKILL after a random time, and begun again with the same command until it ends. Then its records and its
report are compared with those of an undisturbed one.

    python benchmarks/torture/kills.py --count 200            # all ways of running, about 40 minutes on one core
    python benchmarks/torture/kills.py --count 10 --only in-process

    python benchmarks/torture/kills.py --signal TERM --count 40   # told to stop, as by a scheduler; INT: as by Ctrl-C

Ways of running: `in-process` and `subprocess` with processes forked from one that has imported everything (each kill
thus costs seconds, and all code from the first argument on is the real one), and `in-process-cold`, `subprocess-cold`
and `ray`, in which every process starts from nothing. Where there are workers, the driver, one worker or all at once
are killed. A reply that the endpoint gave, and that had not reached the cache when the process died, has to be asked
for again; such requests are counted apart (`asked_again`). A request whose reply was in the cache must never be sent.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _campaign import Campaign, options
from _compare import differences, held_replies, left_behind, plain_report, records, report_differences
from _endpoint import Endpoint
from _process import Forked, adopt_orphans, cold, descendants, fork_workers, optaware, reap, warm_up
from _study import write_study

from optaware.models import tiny_model

SHARES = {"in-process": 0.5, "subprocess": 0.3, "in-process-cold": 0.07, "subprocess-cold": 0.07, "ray": 0.06}
STAGES = ("rewriting", "judging", "training", "evaluation", "report")
LONGEST_S = 300.0
MOST_FAULTY = 10
"""Studies with faults after which a way of running is given up."""
ENDED = (0, 1, 3)

Process = Forked | subprocess.Popen[bytes]


@dataclass
class Way:
    """One way of running, and what an undisturbed study of it gave."""

    name: str
    study: Path
    expected: dict[str, Any]
    report: dict[str, str]
    seconds: float
    begins: float

    def start(self, store: Path, log: Path) -> Process:
        """Start or resume the study."""
        return _start(self.name, self.study, store, log)


def _start(name: str, study: Path, store: Path, log: Path) -> Process:
    executor = name.removesuffix("-cold")
    arguments = ["run", str(study), "--store", str(store), "--executor", executor]
    if name.endswith("-cold") or name == "ray":
        return cold(arguments, log)

    def work() -> int:
        if executor == "subprocess":
            fork_workers()
        return optaware(arguments)

    with log.open("ab") as file:
        return Forked(work, file)


@dataclass
class Chain:
    """One study, its kills and what became of it."""

    way: Way
    store: Path
    log: Path
    endpoint: Endpoint
    draw: random.Random
    number: signal.Signals = signal.SIGKILL
    kills: int = 0
    targets: Counter[str] = field(default_factory=Counter)
    stages: Counter[str] = field(default_factory=Counter)
    snapshots: list[tuple[int, set[str]]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    offset: int = 0

    def run(self, most: int) -> None:
        """Start, kill and resume until the study ends by itself; at most `most` kills."""
        self.offset = len(self.endpoint.arrivals())
        while not self.faults:
            process = self.way.start(self.store, self.log)
            if not self._disturb(process, most):
                code = self._end_of(process)  # once more where `_stop` has seen it
                if code == 0:
                    return
                if code not in ENDED:
                    self.faults.append(f"{self.way.name}: exit code {code}, see {self.log}")
                elif code == 1 and not self.targets["worker"]:
                    self.faults.append(f"{self.way.name}: failures without a killed worker, see {self.log}")

    def _end_of(self, process: Process) -> int:
        try:
            return process.wait(LONGEST_S)
        except subprocess.TimeoutExpired:
            self._kill([process.pid, *descendants(process.pid)])
            process.wait()
            return -99

    def _disturb(self, process: Process, most: int) -> bool:
        """Kill something at a random moment; whether the driver is gone. False: it may end by itself."""
        while self.kills < most:
            if not self._alive_until_the_moment(process):
                return False
            if self.number != signal.SIGKILL:
                return self._stop(process)
            target = self._target(process)
            if target == "worker":
                continue
            process.wait()
            if self.draw.random() < 0.5:
                self._wait_for_orphans()  # otherwise the next driver meets them
            self._note()
            return True
        return False

    def _alive_until_the_moment(self, process: Process) -> bool:
        """Wait for a random time, or until a random time after the study has come to a stage drawn at random."""
        wanted = self.draw.choice([None, *STAGES])
        seconds = self.draw.random() * (0.5 * self.way.seconds if wanted is None else 0.1)
        end = time.monotonic() + self.way.begins + 0.5 * self.way.seconds
        while wanted is not None and time.monotonic() < end and process.poll() is None and stage(self.store) != wanted:
            time.sleep(0.01)
        if wanted is None:
            seconds += self.way.begins
        with suppress(subprocess.TimeoutExpired):
            process.wait(seconds)
        return process.poll() is None

    def _target(self, process: Process) -> str:
        below = descendants(process.pid)
        target = "driver" if not below else self.draw.choice(["driver", "worker", "all"])
        self.stages[stage(self.store)] += 1
        if target == "worker":
            self._kill([self.draw.choice(below)])
            self._note()
        else:
            # All at once means that no process sees the others die, as when the power goes.
            self._kill([process.pid, *below] if target == "all" else [process.pid])
        self.kills += 1
        self.targets[target] += 1
        return target

    def _stop(self, process: Process) -> bool:
        """Tell the driver to stop; whether it did."""
        self.stages[stage(self.store)] += 1
        process.send_signal(self.number)
        self.kills += 1
        self.targets["driver"] += 1
        code = self._end_of(process)
        # Before it could listen, the signal ends it as any program.
        if code not in (0, 3, -self.number) and not (self.number == signal.SIGINT and code == 130):
            self.faults.append(f"{self.way.name}: told to stop, it ended with {code}, see {self.log}")
        self._note()
        return code != 0

    def _note(self) -> None:
        self.snapshots.append((len(self.endpoint.arrivals()), held_replies(self.store)))

    @staticmethod
    def _kill(pids: list[int]) -> None:
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _wait_for_orphans(self) -> None:
        end = time.monotonic() + 90
        while self._orphans():
            if time.monotonic() > end:
                self.faults.append(f"{self.way.name}: orphans of a killed driver do not end: {self._orphans()}")
                self._kill(self._orphans())
            time.sleep(0.05)

    def _orphans(self) -> list[int]:
        reap()
        return [pid for pid in descendants(os.getpid()) if pid != self.endpoint.pid]

    def check(self, scratch: Path) -> dict[str, int]:
        """Compare with the undisturbed study; returns the counts of requests."""
        self._wait_for_orphans()
        arrivals = self.endpoint.arrivals()
        twice = again = 0
        for place in range(self.offset, len(arrivals)):
            before = [held for at, held in self.snapshots if at <= place]
            if before and arrivals[place] in before[-1]:
                twice += 1
            elif arrivals[place] in arrivals[self.offset : place]:
                again += 1
        if twice:
            self.faults.append(f"{self.way.name}: {twice} requests whose reply was in the cache were sent again")
        if not self.faults:
            self.faults += differences(self.way.expected, records(self.store))
            self.faults += report_differences(self.way.study, self.store, self.way.report, scratch)
            self.faults += left_behind(self.store)
        return {"requests": len(arrivals) - self.offset, "asked_again": again, "paid_twice": twice}


def stage(store: Path) -> str:
    """What a study is at, from the file that was written last."""
    newest, found = 0, "start"
    words = {
        "candidates.jsonl": "rewriting",
        "verdicts.jsonl": "judging",
        "decisions.jsonl": "finishing a corpus",
        "steps.jsonl": "training",
        "eval.jsonl": "training",
        "journal.bin": "training",
        "predictions.jsonl": "evaluation",
        "result.json": "finishing a run",
        "DONE": "between jobs",
        "spec.json": "loading",
        "resolved.json": "loading",
        "status.json": "loading",
    }
    for path in _files(store):
        with suppress(OSError):
            if path.is_file() and (changed := path.stat().st_mtime_ns) > newest:
                if path.parent.parent.name == "studies":
                    newest, found = changed, "report" if path.name.startswith(("report", "runs", "cont")) else found
                elif path.name in words:
                    newest, found = changed, words[path.name]
    if all_done(store) and found == "between jobs":
        return "report"
    return found


def _files(store: Path) -> list[Path]:
    """What lies in a folder that others change meanwhile."""
    return [Path(folder, name) for folder, _, names in os.walk(store) for name in names]


def all_done(store: Path) -> bool:
    """Whether every job that was ever begun is done, and there are corpora among them."""
    jobs = [path.parent for path in store.glob("*/*/spec.json")]
    return any(store.glob("corpora/*/DONE")) and all((job / "DONE").exists() for job in jobs) and len(jobs) > 3


def undisturbed(name: str, study: Path, work: Path) -> Way:
    """Run a study whole and keep what it gave."""
    store, log = work / f"undisturbed-{name}", work / f"undisturbed-{name}.log"
    shutil.rmtree(store, ignore_errors=True)
    began = time.monotonic()
    process = _start(name, study, store, log)
    begins = 0.0
    while process.poll() is None:
        if not begins and any(store.glob("runs/*/status.json")):
            begins = time.monotonic() - began
        time.sleep(0.01)
    seconds = time.monotonic() - began
    if process.returncode != 0:
        raise RuntimeError(f"the undisturbed study failed, see {log}")
    return Way(
        name, study, records(store), plain_report(study, store, work / "scratch"), seconds - begins, begins * 0.9
    )


@contextmanager
def arena(work: Path, names: list[str]) -> Iterator[tuple[Endpoint, Callable[[str], Way]]]:
    """Endpoint, model and warm parent; gives each way its undisturbed study when it is asked for."""
    os.environ["OPTAWARE_TORTURE_KEY"] = "canary-7c2e"
    adopt_orphans()
    model = tiny_model(work / "model")
    endpoint = Endpoint(work / "arrivals.txt")
    try:
        whole = write_study(work / "study.yaml", model, endpoint.ref(), workers=2)
        small = write_study(work / "small.yaml", model, endpoint.ref(), workers=2, small=True)
        if any(name in ("in-process", "subprocess") for name in names):
            warm = work / "warm-up"
            shutil.rmtree(warm, ignore_errors=True)
            arguments = ["run", str(whole), "--store", str(warm), "--executor", "in-process"]
            warm_up(lambda: optaware(arguments), work)
        yield endpoint, lambda name: undisturbed(name, whole if name in ("in-process", "subprocess") else small, work)
    finally:
        endpoint.close()


def main() -> int:
    """Run the campaign."""
    parser = options(__doc__, 200, "kills in all")
    parser.add_argument("--only", nargs="+", choices=SHARES, default=list(SHARES), help="these ways of running")
    parser.add_argument("--signal", choices=["KILL", "TERM", "INT"], default="KILL", help="how it is ended")
    given = parser.parse_args()
    number = signal.Signals[f"SIG{given.signal}"]
    campaign = Campaign("kills" if number == signal.SIGKILL else f"stops_{given.signal.lower()}", given)
    total = sum(SHARES[name] for name in given.only)
    wanted = {name: max(1, round(given.count * SHARES[name] / total)) for name in given.only}
    if pending := [name for name in given.only if wanted[name] > _kills(campaign, name)]:
        with arena(campaign.work, pending) as (endpoint, way_of):
            for name in pending:
                way, index = way_of(name), 0
                while (left := wanted[name] - _kills(campaign, name)) > 0 and _faulty(campaign, name) < MOST_FAULTY:
                    index += 1
                    key = f"{name}/{index}"
                    if not campaign.has(key):
                        places = campaign.work / "store", campaign.work / "study.log"
                        _one(campaign, Chain(way, *places, endpoint, campaign.random(key), number), key, left)
    rows = [_row(name, [row for row in campaign.rows if row["way"] == name]) for name in given.only]
    notes = [
        "compared: every record (JSON without times, memory and process ids; other files by their bytes), the reply "
        "cache as a set, and the report built again from records whose times are all set to one value",
        "asked_again: requests whose reply had not reached the cache when the process died; paid_twice: the others",
        "in-process and subprocess are forks of a process that has imported everything; the others start from nothing",
    ]
    return campaign.finish(rows, notes=notes)


def _faulty(campaign: Campaign, name: str) -> int:
    return sum(bool(row["faults"]) for row in campaign.rows if row["way"] == name)


def _kills(campaign: Campaign, name: str) -> int:
    return sum(row["kills"] for row in campaign.rows if row["way"] == name)


def _one(campaign: Campaign, chain: Chain, key: str, most: int) -> None:
    shutil.rmtree(chain.store, ignore_errors=True)
    chain.log.write_bytes(b"")
    began = time.monotonic()
    chain.run(most)
    counts = chain.check(campaign.work / "scratch")
    if chain.faults:
        kept = campaign.work / f"fault-{key.replace('/', '-')}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(chain.store, kept)
        shutil.copy(chain.log, kept / "study.log")
    campaign.add(
        key,
        way=chain.way.name,
        kills=chain.kills,
        **counts,
        wall_s=round(time.monotonic() - began, 1),
        targets=dict(chain.targets),
        stages=dict(chain.stages),
        faults=chain.faults,
    )


def _row(name: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    targets: Counter[str] = Counter()
    stages: Counter[str] = Counter()
    for row in rows:
        targets.update(row["targets"])
        stages.update(row["stages"])
    sums = {what: sum(row[what] for row in rows) for what in ("kills", "requests", "asked_again", "paid_twice")}
    return {
        "case": "whole study",
        "variant": name,
        "studies": len(rows),
        **sums,
        "studies_with_faults": sum(bool(row["faults"]) for row in rows),
        "wall_s": round(sum(row["wall_s"] for row in rows), 1),
        **{f"killed_{target}": count for target, count in sorted(targets.items())},
        **{f"while_{what.replace(' ', '_')}": count for what, count in sorted(stages.items())},
    }


if __name__ == "__main__":
    sys.exit(main())
