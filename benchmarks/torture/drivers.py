"""Two drivers at once, and clocks that jump: the same study ends with the same records.

    python benchmarks/torture/drivers.py --count 30           # ten of each kind; some minutes on one core

- `same study`: a second driver begins at a random moment. It is refused by the documented error, or finds all done.
- `shared parts`: a study that shares a corpus and runs with another is run beside it, in the same results folder; both
  end, no request is sent twice, and every shared folder is as if one of them had been alone.
- `clock`: while a study runs, the time of day jumps by up to six hours forwards and backwards, many times a second; it
  is killed once, the times of its files are moved by up to a day, and it goes on.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from _campaign import Campaign, options
from _compare import differences, left_behind, plain_report, records, report_differences
from _disk import jump_clock, preload
from _endpoint import Endpoint
from _process import Forked, adopt_orphans, optaware, warm_up
from _study import write_study

from optaware._io import dump_yaml, read_yaml
from optaware.errors import StorageError
from optaware.models import tiny_model

BUSY = StorageError.exit_code
KINDS = ("same study", "shared parts", "clock")


class Bench:
    """The study, a second one that shares parts with it, and what each gives undisturbed."""

    def __init__(self, work: Path) -> None:
        os.environ["OPTAWARE_TORTURE_KEY"] = "canary-7c2e"
        adopt_orphans()
        self.work, self.store, self.log = work, work / "store", work / "study.log"
        model = tiny_model(work / "model")
        self.endpoint = Endpoint(work / "arrivals.txt")
        self.study = write_study(work / "study.yaml", model, self.endpoint.ref(), small=True)
        self.other = work / "other.yaml"
        shared = read_yaml(self.study)
        shared |= {"name": "torture-other", "seeds": [0, 1]}
        self.other.write_text(dump_yaml(shared), "utf-8")
        self.clear()
        warm_up(lambda: optaware(self._arguments(self.other)), work)
        self.expected_of_both = records(self.store)  # the other study needs all that the first does
        self.clear()
        began = time.monotonic()
        if self.start(self.study).wait() != 0:
            raise RuntimeError(f"the undisturbed study failed, see {self.log}")
        self.seconds = time.monotonic() - began
        self.expected = records(self.store)
        self.report = plain_report(self.study, self.store, work / "scratch")

    def _arguments(self, study: Path) -> list[str]:
        return ["run", str(study), "--store", str(self.store), "--executor", "in-process"]

    def clear(self) -> None:
        """No store, no log."""
        shutil.rmtree(self.store, ignore_errors=True)
        self.log.write_bytes(b"")

    def start(self, study: Path, clock: int | None = None) -> Forked:
        """Start a study in a fork; with `clock`, its time of day jumps."""

        def work() -> int:
            if clock is not None:
                jump_clock(clock)
            return optaware(self._arguments(study))

        with self.log.open("ab") as file:
            return Forked(work, file)

    def said(self) -> str:
        """What was printed."""
        return self.log.read_text("utf-8", "replace")

    def ended(self, report: bool = True) -> list[str]:
        """How the store differs from that of an undisturbed study."""
        faults = differences(self.expected, records(self.store)) + left_behind(self.store)
        if report and not faults:
            faults = report_differences(self.study, self.store, self.report, self.work / "scratch")
        return faults


def same_study(bench: Bench, draw: random.Random) -> list[str]:
    """Two drivers of one study."""
    first = bench.start(bench.study)
    time.sleep(draw.random() * bench.seconds)
    second = bench.start(bench.study)
    codes = first.wait(300), second.wait(300)
    # Whichever begins its work first is served; the other is told, or comes when all is done.
    busy = bench.said().count("another process runs it")
    told = sorted(codes) in ([0, 0], [0, BUSY]) and busy == codes.count(BUSY)
    return ([] if told else [f"exit codes {codes}, told {busy} times"]) + bench.ended()


def shared_parts(bench: Bench, draw: random.Random) -> list[str]:
    """Two studies that share parts, side by side."""
    before = len(bench.endpoint.arrivals())
    first, second = draw.sample([bench.study, bench.other], 2)
    one = bench.start(first)
    time.sleep(draw.random() * 0.5 * bench.seconds)
    two = bench.start(second)
    codes = one.wait(300), two.wait(300)
    faults = [] if codes == (0, 0) else [f"exit codes {codes}"]
    asked = bench.endpoint.arrivals()[before:]
    if len(asked) != len(set(asked)):
        faults.append(f"{len(asked) - len(set(asked))} requests were sent twice")
    found = records(bench.store)
    both = {**bench.expected, **bench.expected_of_both}
    return faults + differences(both, found) + left_behind(bench.store)


def clock(bench: Bench, draw: random.Random) -> list[str]:
    """A study under a clock that jumps, killed once, its files' times moved."""
    process = bench.start(bench.study, draw.randrange(1, 1 << 30))
    with suppress(subprocess.TimeoutExpired):
        process.wait(draw.random() * bench.seconds)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for folder, _, names in os.walk(bench.store):
        for name in names:
            moved = time.time() + draw.uniform(-86400, 86400)
            os.utime(Path(folder, name), (moved, moved))
    code = bench.start(bench.study, draw.randrange(1, 1 << 30)).wait(300)
    return ([] if code == 0 else [f"it ended with {code}: {bench.said()[-300:]}"]) + bench.ended()


def main() -> int:
    """Run the campaign."""
    parser = options(__doc__, 30, "studies in all, spread evenly over the kinds")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    given = parser.parse_args()
    campaign = Campaign("drivers", given)
    preload(campaign.work)
    bench = Bench(campaign.work)
    what = {"same study": same_study, "shared parts": shared_parts, "clock": clock}
    try:
        for kind in given.only:
            for number in range(max(1, given.count // len(given.only))):
                key = f"{kind}/{number}"
                if campaign.has(key):
                    continue
                bench.clear()
                faults = what[kind](bench, campaign.random(key))
                if faults:
                    shutil.copytree(bench.store, campaign.work / f"fault-{key.replace('/', '-')}", dirs_exist_ok=True)
                    shutil.copy(bench.log, campaign.work / f"fault-{key.replace('/', '-')}.log")
                campaign.add(key, kind=kind, faults=[f"{key}: {fault}" for fault in faults])
    finally:
        bench.endpoint.close()
    rows = []
    for kind in given.only:
        mine = [row for row in campaign.rows if row["kind"] == kind]
        faulty = sum(bool(row["faults"]) for row in mine)
        rows.append({"case": kind, "variant": "in-process", "studies": len(mine), "with_faults": faulty})
    return campaign.finish(rows)


if __name__ == "__main__":
    sys.exit(main())
