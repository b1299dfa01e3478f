"""Time and memory of `make demo`: first result, whole, and again when all is done.

    python benchmarks/demo.py [--store FOLDER] [--out FILE]

Runs the quickstart study in an empty store, with the assets already here, as `make demo` does after set-up. Memory is
the largest sum, over all processes of the run, of what each holds for itself plus its share of what is shared (PSS),
sampled twice a second.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from _result import write_result


def _children(pid: int) -> list[int]:
    found = [pid]
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found += _children(int(child))
    return found


def _memory_bytes(pid: int) -> int:
    total = 0
    for process in _children(pid):
        try:
            for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += 1024 * int(line.split()[1])
        except OSError:  # it ended between the two looks
            continue
    return total


def _run(store: Path) -> dict[str, object]:
    command = [sys.executable, "-m", "optaware", "run", "--store", str(store)]
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    peak, first, report = 0, None, None

    def watch() -> None:
        nonlocal peak
        while process.poll() is None:
            with contextlib.suppress(OSError):
                peak = max(peak, _memory_bytes(process.pid))
            time.sleep(0.5)

    watcher = threading.Thread(target=watch)
    watcher.start()
    assert process.stdout is not None
    for line in process.stdout:
        seconds = time.perf_counter() - began
        print(f"{seconds:7.1f} {line}", end="", flush=True)
        if first is None and ", mezo on original" in line and "test accuracy" in line:
            first = seconds
        if line.startswith("Report: "):
            report = seconds
    watcher.join()
    return {
        "exit_code": process.wait(),
        "first_result_s": first,
        "report_s": report,
        "wall_s": time.perf_counter() - began,
        "peak_memory_bytes": peak,
    }


def main() -> None:
    """Run the quickstart twice and write one result file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, default=None, help="default: a new temporary folder")
    parser.add_argument("--out", type=Path, default=None)
    options = parser.parse_args()
    store = options.store or Path(tempfile.mkdtemp(prefix="optaware-demo-"))
    rows = [{"case": "quickstart", "variant": variant, **_run(store)} for variant in ("empty store", "all done")]
    write_result("demo", rows, out=options.out)
    for row in rows:
        print(row)


if __name__ == "__main__":
    main()
