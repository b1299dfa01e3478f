"""Fuzz every reader of files that others wrote: documented errors only, no hang over 1 s, no memory over 1 GiB.

A share of each target's inputs comes from atheris (coverage-guided and therefore some twenty times slower; extra
`fuzz`), where it is installed, the others from mutations of valid files. Every target runs in processes of its own,
whose address space is limited to 1 GiB above what the imports took; an input that kills its process is found in the
file that held it. Same seed, same mutations; where a process has ended badly the next goes on with other draws.

    python benchmarks/torture/fuzz.py --count 1000000 --seed 0 --out benchmarks/results/torture_fuzz.json
    (the same command again goes on with the targets that are missing or had faults)
    python benchmarks/torture/fuzz.py --target plan --target wheel --count 20000      # some targets only
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from _fuzz_engine import MAX_BYTES, Log, Watch, run_atheris, run_mutations  # noqa: E402
from _fuzz_targets import Target, targets  # noqa: E402

from _result import RESULTS, write_result  # noqa: E402

ENGINES = ("mutations", "atheris")
_SILENT_S = 120.0


def main(arguments: list[str] | None = None) -> int:
    """Run a campaign; the exit code is 1 when anything was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000, help="inputs in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--target", action="append", choices=sorted(targets()), help="only these (repeat it)")
    parser.add_argument(
        "--engine", action="append", choices=ENGINES, help="only these; default: all that are installed"
    )
    parser.add_argument("--atheris-share", type=float, default=0.05, help="part of the inputs that atheris makes")
    parser.add_argument("--found", type=Path, default=Path("fuzz-found"), help="folder for the inputs that did harm")
    parser.add_argument("--out", type=Path, default=RESULTS / "torture_fuzz.json")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.worker:
        return _work(json.loads(asked.worker))
    engines = asked.engine or [name for name in ENGINES if name != "atheris" or importlib.util.find_spec("atheris")]
    rows = _finished(asked)
    for name, engine, count in _shares(asked.target or list(targets()), engines, asked.count, asked.atheris_share):
        if any((row["case"], row["variant"]) == (name, engine) and row["inputs"] >= count for row in rows):
            continue
        row = _campaign(name, engine, count, asked.seed, asked.found / name)
        rows.append(row)
        print(json.dumps(row), flush=True)
        _write(asked, rows, engines)
    return int(any(row["faults"] for row in rows))


def _finished(asked: argparse.Namespace) -> list[dict[str, Any]]:
    """Rows without faults that an earlier call with the same seed left: the same command goes on where it stopped."""
    if not asked.out.exists():
        return []
    before = json.loads(asked.out.read_text("utf-8"))
    same = before["settings"].get("seed") == asked.seed
    return [row for row in before["rows"] if same and not row["faults"]]


def _shares(names: list[str], engines: list[str], count: int, guided: float) -> list[tuple[str, str, int]]:
    known = targets()
    total = sum(known[name].share for name in names)
    parts = {"mutations": 1 - guided, "atheris": guided} if len(engines) > 1 else {engines[0]: 1.0}
    return [
        (name, engine, math.ceil(count * known[name].share / total * part))
        for engine, part in parts.items()
        for name in names
    ]


def _write(asked: argparse.Namespace, rows: list[dict[str, Any]], engines: list[str]) -> None:
    settings = {"count": asked.count, "seed": asked.seed, "engines": engines, "max_input_bytes": MAX_BYTES}
    total = sum(row["inputs"] for row in rows)
    faults = sum(row["faults"] for row in rows)
    notes = [f"{total} inputs, {faults} kinds of faults; `refused` ended in a documented error, `accepted` were read"]
    write_result("torture_fuzz", rows, out=asked.out, notes=notes, settings=settings)


def _campaign(name: str, engine: str, count: int, seed: int, found: Path) -> dict[str, Any]:
    began, logs, died = time.monotonic(), [], 0
    while (done := sum(log["count"] for log in logs)) < count:
        log, harm = _one_process(name, engine, count - done, seed + 1000 * len(logs), found)
        if harm:
            died += 1
            log["faults"][f"died: {harm[0]}"] = {"input": harm[1], "detail": harm[0]}
        logs.append(log)
        if died > 5 or not log["count"]:
            break
    kinds = {kind: fault for log in logs for kind, fault in log["faults"].items()}
    return {
        "case": name,
        "variant": engine,
        "inputs": sum(log["count"] for log in logs),
        "accepted": sum(log["accepted"] for log in logs),
        "refused": sum(log["refused"] for log in logs),
        "faults": len(kinds),
        "kinds": "; ".join(f"{kind} ({fault['input']})" for kind, fault in kinds.items()),
        "slowest_s": round(max(log["slowest_s"] for log in logs), 3),
        "peak_growth_bytes": max(log["peak_growth_bytes"] for log in logs),
        "wall_s": round(time.monotonic() - began, 1),
    }


def _one_process(
    name: str, engine: str, count: int, seed: int, found: Path
) -> tuple[dict[str, Any], tuple[str, str] | None]:
    """Run one worker; its log, and how it died with the input that was at work, if it did."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory if os.access(memory, os.W_OK) else None) as made:
        folder = Path(made)
        log = folder / "log.json"
        ticket = {
            "name": name,
            "engine": engine,
            "count": count,
            "seed": seed,
            "folder": made,
            "found": str(found.resolve()),
        }
        command = [sys.executable, str(Path(__file__).resolve()), "--worker", json.dumps(ticket)]
        with (folder / "output").open("wb") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
            last, moved = -1, time.monotonic()
            while process.poll() is None:
                time.sleep(0.2)
                at = log.stat().st_mtime_ns if log.exists() else 0
                if at != last:
                    last, moved = at, time.monotonic()
                elif time.monotonic() - moved > _SILENT_S:
                    process.kill()
        told = json.loads(log.read_text()) if log.exists() else vars(Log(log)) | {"path": None}
        if process.returncode == 0:
            return told, None
        current = (folder / "current").read_bytes() if (folder / "current").exists() else b"\0" * 8
        data = current[8 : 8 + int.from_bytes(current[:8], "little")]
        found.mkdir(parents=True, exist_ok=True)
        (found / f"died-{seed}.bin").write_bytes(data)
        tail = (folder / "output").read_text("utf-8", "replace")[-300:].replace("\n", " | ")
        return told, (f"exit {process.returncode}: {tail}", f"died-{seed}.bin")


def _work(ticket: dict[str, Any]) -> int:
    """The worker's side: see `_one_process`."""
    folder, engine = Path(ticket["folder"]), ticket["engine"]
    if engine == "atheris":
        import atheris

        # Coverage of this project's code and of the readers that it calls; what is imported before is not counted.
        for module in [name for name in sys.modules if name.split(".")[0] == "optaware"]:
            del sys.modules[module]
        with atheris.instrument_imports(include=["optaware", "yaml", "zipfile", "gguf"], enable_loader_override=False):
            return _work_on(ticket, folder, targets()[ticket["name"]])
    return _work_on(ticket, folder, targets()[ticket["name"]])


def _work_on(ticket: dict[str, Any], folder: Path, target: Target) -> int:
    log = Log(folder / "log.json")
    watch = Watch(target, folder, log, Path(ticket["found"]))
    log.accepted = log.refused = 0
    if ticket["engine"] == "atheris":
        run_atheris(target, watch, log, ticket["count"], ticket["seed"], folder)
    run_mutations(target, watch, ticket["count"], ticket["seed"])
    log.write()
    return 0


if __name__ == "__main__":
    sys.exit(main())
