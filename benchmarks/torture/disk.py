"""Break off, refuse or lose every change that a study makes to the disk, and see that it goes on to the same end.

    python benchmarks/torture/disk.py --count 400                   # 100 of each kind; about 25 minutes on one core
    python benchmarks/torture/disk.py --count 100000 --only kill    # every single change

A study is taken whose one part is missing: a corpus, a run or the report. Kinds of fault:

- `kill`: the process dies at the k-th change (file made, written, cut, renamed, linked, removed, synced), a write being
  half done;
- `full`: from the k-th change on the disk is full; the study must say so by the documented error, and go on later;
- `full-once`: only the k-th change fails;
- `read-only`: from the k-th change on the folder is read-only;
- `power`: the power goes after the k-th change of a whole study. What was synced is there; of everything else either
  nothing, or everything, or a part drawn at random, folder by folder and file by file.

Then the same command runs undisturbed, and all records must be those of a study that nothing happened to.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any, Literal

from _campaign import Campaign, options
from _compare import differences, left_behind, plain_report, records, report_differences
from _disk import Disk, arm, changes_so_far, preload, read_changes
from _endpoint import Endpoint
from _process import Forked, adopt_orphans, optaware, warm_up
from _study import write_study

from optaware.models import tiny_model

PARTS = {"corpus": "corpora/*-paraphrase", "run": "runs/*-paraphrase-*", "report": "studies/*"}
KINDS = ("kill", "full", "full-once", "read-only", "power")
MESSAGES = {errno.ENOSPC: "No space left on device", errno.EROFS: "Read-only file system"}
KEPT: tuple[Literal["all", "none", "some"], ...] = ("none", "some", "some", "all")


class Bench:
    """The study, what it gives undisturbed, and stores in which a part of it is missing."""

    def __init__(self, work: Path) -> None:
        os.environ["OPTAWARE_TORTURE_KEY"] = "canary-7c2e"
        adopt_orphans()
        self.work, self.store, self.log = work, work / "store", work / "study.log"
        model = tiny_model(work / "model")
        self.endpoint = Endpoint(work / "arrivals.txt")
        self.study = write_study(work / "study.yaml", model, self.endpoint.ref(), small=True)
        shutil.rmtree(work / "warm-up", ignore_errors=True)
        warm_up(lambda: optaware(self._arguments(work / "warm-up")), work)
        self.clear()
        if (code := self.run()) != 0:
            raise RuntimeError(f"the undisturbed study failed ({code}), see {self.log}")
        self.base = work / "base"
        shutil.rmtree(self.base, ignore_errors=True)
        shutil.copytree(self.store, self.base)
        self.expected = records(self.base)
        self.report = plain_report(self.study, self.base, work / "scratch")

    def _arguments(self, store: Path) -> list[str]:
        return ["run", str(self.study), "--store", str(store), "--executor", "in-process"]

    def clear(self) -> None:
        """No store, no log."""
        shutil.rmtree(self.store, ignore_errors=True)
        self.log.write_bytes(b"")

    def without(self, part: str) -> None:
        """A store in which one part has to be made again."""
        self.clear()
        shutil.copytree(self.base, self.store)
        for path in {*self.store.glob(PARTS[part]), *self.store.glob("studies/*")}:
            shutil.rmtree(path)
        if part == "corpus":
            shutil.rmtree(self.store / "chat-cache")

    def run(self, **armed: Any) -> int:
        """Run the study in a fork, with the disk armed; its exit code."""
        counted = self.work / "count.txt"

        def work() -> int:
            if armed:
                log = self.work / "changes.bin"
                if armed.get("mode") == "log":
                    armed["log"] = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
                arm(self.store, **armed)
            try:
                return optaware(self._arguments(self.store))
            finally:
                if armed:
                    count = changes_so_far()
                    arm(self.store, "off")
                    counted.write_text(str(count))

        with self.log.open("ab") as file:
            return Forked(work, file).wait(300)

    def changes(self, part: str) -> int:
        """How many changes it takes to make a part."""
        self.without(part)
        if self.run(mode="count") != 0:
            raise RuntimeError(f"see {self.log}")
        return int((self.work / "count.txt").read_text())

    def check(self, *, report: bool) -> list[str]:
        """Run undisturbed to the end, then compare."""
        if (code := self.run()) != 0:
            return [f"going on ended with {code}: {self.last_words()}"]
        faults = differences(self.expected, records(self.store)) + left_behind(self.store)
        if report and not faults:
            faults = report_differences(self.study, self.store, self.report, self.work / "scratch")
        return faults

    def last_words(self) -> str:
        """The end of what the study printed."""
        return self.log.read_text("utf-8", "replace")[-600:]

    def keep(self, key: str) -> None:
        """Keep the store of a fault."""
        kept = self.work / f"fault-{key.replace('/', '-')}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(self.store, kept)
        shutil.copy(self.log, kept / "study.log")


def refused(bench: Bench, code: int, number: int) -> list[str]:
    """What is wrong with how a study took a disk that refused."""
    said = bench.log.read_text("utf-8", "replace")
    if code == 0:
        return []  # what failed was not needed, or was done again
    if code not in (1, 2, 3):
        return [f"a refused change ended it with {code}: {said[-300:]}"]
    if "Traceback" in said:
        return [f"a refused change is not told as an error: {said[-600:]}"]
    return [] if MESSAGES[number] in said else [f"the reason is not told: {said[-300:]}"]


def disturbed(bench: Bench, kind: str, part: str, at: int) -> list[str]:
    """One change of a part refused or broken off; what was wrong with that or with what followed."""
    bench.without(part)
    if kind == "kill":
        code = bench.run(mode="kill", at=at)
        faults = [] if code == -signal.SIGKILL else [f"was to die and ended with {code}"]
    else:
        number = errno.EROFS if kind == "read-only" else errno.ENOSPC
        code = bench.run(mode="full", at=at, code=number, once=kind == "full-once")
        faults = refused(bench, code, number)
    return faults or bench.check(report=part == "report")


def power(bench: Bench, campaign: Campaign, count: int) -> None:
    """Write down a whole study; then, for points drawn at random, let the power go there."""
    bench.clear()
    if bench.run(mode="log") != 0:
        raise RuntimeError(f"see {bench.log}")
    changes = read_changes(bench.work / "changes.bin")
    whole = Disk(bench.store)
    for change in changes:
        whole.apply(change)
    whole.write(bench.work / "rebuilt", campaign.random("rebuilt"), "all")
    if wrong := differences(records(bench.store), records(bench.work / "rebuilt")):
        raise RuntimeError(f"the changes that were written down do not make the store again: {wrong[:3]}")
    shutil.rmtree(bench.work / "rebuilt")
    points = sorted(campaign.random("points").sample(range(1, len(changes) + 1), min(count, len(changes))))
    disk, done = Disk(bench.store), 0
    for number, point in enumerate(points):
        for change in changes[done:point]:
            disk.apply(change)
        done = point
        key = f"power/{point}-of-{len(changes)}"
        if campaign.has(key):
            continue
        bench.clear()
        kept = KEPT[number % len(KEPT)]
        disk.write(bench.store, campaign.random(key), kept)
        one(bench, campaign, key, "power", kept, bench.check(report=number % 10 == 0))


def one(bench: Bench, campaign: Campaign, key: str, kind: str, part: str, faults: list[str]) -> None:
    """Keep one outcome."""
    if faults:
        bench.keep(key)
    campaign.add(key, kind=kind, part=part, faults=[f"{key}: {fault}" for fault in faults])


def main() -> int:
    """Run the campaign."""
    parser = options(__doc__, 500, "faults in all, spread evenly over the kinds")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    given = parser.parse_args()
    campaign = Campaign("disk", given)
    preload(campaign.work)
    bench = Bench(campaign.work)
    began = time.monotonic()
    each = max(1, given.count // len(given.only))
    totals: dict[str, int] = {}
    try:
        if set(given.only) - {"power"}:
            totals = {part: bench.changes(part) for part in PARTS}
        for kind in given.only:
            if kind == "power":
                power(bench, campaign, each)
                continue
            points = [(part, at) for part, total in totals.items() for at in range(1, total + 1)]
            for part, at in sorted(campaign.random(kind).sample(points, min(each, len(points)))):
                key = f"{kind}/{part}/{at}-of-{totals[part]}"
                if not campaign.has(key):
                    one(bench, campaign, key, kind, part, disturbed(bench, kind, part, at))
    finally:
        bench.endpoint.close()
    rows = []
    for kind, part in sorted({(row["kind"], row["part"]) for row in campaign.rows}):
        mine = [row for row in campaign.rows if (row["kind"], row["part"]) == (kind, part)]
        faulty = sum(bool(row["faults"]) for row in mine)
        rows.append({"case": kind, "variant": part, "points": len(mine), "with_faults": faulty})
    settings = {"changes": totals, "wall_s": round(time.monotonic() - began, 1)}
    return campaign.finish(rows, settings=settings, notes=["variant of power: what survives of changes not synced"])


if __name__ == "__main__":
    sys.exit(main())
