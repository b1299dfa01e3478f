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
  nothing, or everything, or a part drawn at random, folder by folder and file by file. What was finished before must be
  there then, and so must every reply that was synced;
- `cut`: one file of a finished store, drawn at random, is cut at a random place, and half of the time its folder has
  lost its marker. The next command must make the file again, or name it in a documented error, or not need it;
  figures that differ without a word are a fault.

Then the same command runs undisturbed, and all records must be those of a study that nothing happened to.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any, Literal

from _campaign import Campaign, options
from _compare import differences, held_replies, left_behind, plain_report, records, report_differences
from _disk import Change, Disk, arm, changes_so_far, preload, read_changes
from _endpoint import Endpoint
from _process import Forked, adopt_orphans, optaware, warm_up
from _study import write_study

from optaware.models import tiny_model

PARTS = {"corpus": "corpora/*-paraphrase", "run": "runs/*-paraphrase-*", "report": "studies/*"}
KINDS = ("kill", "full", "full-once", "read-only", "power", "cut")
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

    def check(self, *, report: bool, cache: bool = True) -> list[str]:
        """Run undisturbed to the end, then compare; without `cache`, replies that records hold may be gone from it."""
        if (code := self.run()) != 0:
            return [f"going on ended with {code}: {self.last_words()}"]
        found = records(self.store)
        if not cache:
            found["chat-cache"] = self.expected["chat-cache"]
        faults = differences(self.expected, found) + left_behind(self.store)
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


def cut(bench: Bench, campaign: Campaign, number: int) -> tuple[str, list[str]]:
    """One file of a finished store cut short; what became of it, and what was wrong with that."""
    bench.without("report")
    draw = campaign.random("cut", number)
    files = [path for path in sorted(bench.store.rglob("*")) if _is_record(path)]
    path = draw.choice(files)
    marker = path.parent / "DONE"
    marked = not (path != marker and marker.exists() and draw.random() < 0.5)
    if not marked:
        marker.unlink()
    name = str(path.relative_to(bench.store))
    path.write_bytes(path.read_bytes()[: draw.randrange(path.stat().st_size)])
    code, said = bench.run(), bench.log.read_text("utf-8", "replace")
    where = f"{path.name}, {'marked' if marked else 'unmarked'}"
    if "Traceback" in said or code not in (0, 1, 2):
        return where, [f"{name}: ended with {code}: {said[-400:]}"]
    if code != 0:
        return f"{where}: told", [] if path.parent.name in said or path.name in said else [f"{name}: {said[-300:]}"]
    # A reply that the cache has lost was not needed, or was asked for again.
    own = "chat-cache" if name.startswith("chat-cache") else name
    wrong = [each for each in differences(bench.expected, records(bench.store)) if not each.startswith(own)]
    wrong += report_differences(bench.study, bench.store, bench.report, bench.work / "scratch")
    left = "not needed" if differences(bench.expected, records(bench.store)) else "made again"
    return f"{where}: {left}", wrong


def _is_record(path: Path) -> bool:
    names = ("log.txt", "sessions.jsonl", "progress.json")
    return path.is_file() and path.stat().st_size > 0 and path.name not in names and path.suffix != ".lock"


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
        faults = taken_back(bench.store, changes[:point]) or bench.check(report=number % 10 == 0, cache=kept == "all")
        one(bench, campaign, key, "power", kept, faults)


def taken_back(store: Path, changes: list[Change]) -> list[str]:
    """What had been finished before the power went, and is not there any more: marked folders, synced replies."""
    marked, finished, written, kept = set[str](), set[str](), set[str](), set[str]()
    for change in changes:
        if change.kind == "r" and change.other.endswith("/DONE"):
            marked.add(change.other)
        elif change.kind == "s":
            finished |= {path for path in marked if str(Path(path).parent) == change.path}
            if "/segment-" in change.path:
                kept |= written
        elif change.kind == "w" and "/segment-" in change.path:
            written.add(json.loads(change.data)["id"])
    said = [f"taken back: {Path(path).parent.name} was done" for path in finished if not Path(path).exists()]
    lost = len(kept - held_replies(store))
    return said + ([f"taken back: {lost} replies that were synced"] if lost else [])


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
        if set(given.only) - {"power", "cut"}:
            totals = {part: bench.changes(part) for part in PARTS}
        for kind in given.only:
            if kind == "power":
                power(bench, campaign, each)
                continue
            if kind == "cut":
                for number in range(each):
                    key = f"cut/{number}"
                    if not campaign.has(key):
                        one(bench, campaign, key, kind, *cut(bench, campaign, number))
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
