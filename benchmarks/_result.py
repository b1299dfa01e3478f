"""One JSON form for all benchmarks: what was run, on what, with which versions, and the rows of figures."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optaware._io import write_json
from optaware.store import environment

__all__ = ["RESULTS", "device", "write_result"]

RESULTS = Path(__file__).parent / "results"

Row = Mapping[str, str | int | float | bool | None]


def device() -> dict[str, Any]:
    """The processor that torch computes on here: the GPU when there is one, else the CPU and its threads."""
    import torch

    if torch.cuda.is_available():
        return {"kind": "cuda", "name": torch.cuda.get_device_name(), "count": torch.cuda.device_count()}
    load = round(os.getloadavg()[0], 2)
    host = environment()
    return {
        "kind": "cpu",
        "name": host["cpu"],
        "cores": host["cores"],
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
        "load_average": load,
    }


def write_result(
    benchmark: str,
    rows: Sequence[Row],
    *,
    out: Path | None = None,
    notes: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Write a result file and return its path.

    Keys: `benchmark`, `device`, `versions`, `commit`, `command`, `settings`, `notes`, `rows`. Each row says what was
    measured (`case`), how (`variant`), and holds figures whose names end in their unit: `_s`, `_ms`, `_bytes`,
    `_per_s`; ratios are named after what they compare.

    Args:
        benchmark: Name of the benchmark, which is also that of its file.
        rows: At least `case` and `variant` each.
        out: The file; by default `benchmarks/results/<benchmark>_<device kind>.json`.
        notes: What a reader of the figures must know.
        settings: Sizes and choices that the figures depend on.
    """
    if faulty := [dict(row) for row in rows if not {"case", "variant"} <= row.keys()]:
        raise ValueError(f"rows without case or variant: {faulty}")
    machine = device()
    host = environment()
    path = out or RESULTS / f"{benchmark}_{machine['kind']}.json"
    write_json(
        path,
        {
            "benchmark": benchmark,
            "device": machine,
            "versions": {"python": host["python"], "optaware": host["optaware"], **host["packages"]},
            "commit": host["commit"],
            "command": shlex.join(["python", f"benchmarks/{_script()}", *map(_named, sys.argv[1:])]),
            "settings": dict(settings or {}),
            "notes": list(notes),
            "rows": [dict(row) for row in rows],
        },
    )
    return path


def _script() -> Path:
    """The script as a path below `benchmarks`."""
    path, here = Path(sys.argv[0]).resolve(), Path(__file__).resolve().parent
    return path.relative_to(here) if path.is_relative_to(here) else Path(path.name)


def _named(argument: str) -> str:
    """An argument as others can read it: of a path on this machine, its last part."""
    return Path(argument).name if Path(argument).is_absolute() else argument
