from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from optaware._io import read_json, read_jsonl, text_sha256, write_text
from optaware.records.plan_run import PlannedRuns
from optaware.store import RunFolder, Store
from optaware.study._plan_driver import PlanGraph
from optaware.study._script_one import ScriptFolder

__all__ = ["export_plan", "run_row", "without_paths"]

_REPORT = (
    "report.html",
    "report.md",
    "arms.csv",
    "runs.csv",
    "results.json",
    "planned.json",
    "binding.yaml",
)
_PATH = re.compile(r"(?<![\w./<-])/(?:[\w.@+~-]+/)+([\w.@+~-]+)")


def export_plan(graph: PlanGraph, store: Store, to: Path) -> list[Path]:
    """Copy what a plan's runs found into a folder that can be given away: small files, no weights, no machine's paths.

    The report and its tables are those beside the runs; `runs.jsonl` has one line per run with its spec, result,
    evaluations on the dev rows, and which test rows it answered rightly (`correct`, one digit a row, in the order of
    their ids, whose hash is `rows_sha256`): all that the report's statistics are computed from.

    Args:
        graph: The plan; its report must have been built.
        store: Where its runs lie.
        to: The folder; files of the same names are replaced, nothing else in it is touched.

    Returns:
        The files written.

    Raises:
        StorageError: A file cannot be written.
    """
    known = _known_paths(graph, store)
    written = []
    for name in _REPORT:
        path = graph.folder / name
        if path.exists():
            write_text(to / name, without_paths(path.read_text("utf-8"), known))
            written.append(to / name)
    rows = _rows(graph.planned, store, graph.folder, scripts=bool(graph.scripts))
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(to / "runs.jsonl", without_paths(text, known))
    return [*written, to / "runs.jsonl"]


def without_paths(text: str, known: Iterable[str] = ()) -> str:
    """A text with the absolute paths in it cut down to `…/` and their last part.

    Args:
        text: Any text; addresses on the web and paths that are relative stay.
        known: Paths that are there for certain and may hold spaces; longer ones are replaced first.
    """
    for path in sorted(known, key=len, reverse=True):
        text = re.sub(re.escape(path) + r"(?![\w.-])", f"…/{Path(path).name}", text)
    return _PATH.sub(r"…/\1", text)


def _known_paths(graph: PlanGraph, store: Store) -> set[str]:
    spec, request = graph.planned.spec, graph.request
    found = [store.root, store.root.resolve(), Path.cwd(), Path.home(), request.plan, request.binding]
    found += [request.manifest_path, Path(spec.model.name) if spec.model is not None else None]
    return {str(path) for path in found if path is not None and path.is_absolute() and len(path.parts) > 2}


def _rows(planned: PlannedRuns, store: Store, folder: Path, *, scripts: bool) -> list[dict[str, Any]]:
    arms = [("baseline", planned.baseline), *([("baseline, other seeds", planned.noise)] if planned.noise else [])]
    arms += [(f"{entry.name}: {arm.label}", arm) for entry in planned.ablations for arm in entry.arms]
    named: dict[str, tuple[str, int]] = {}
    for name, arm in arms:
        for seed, key in arm.runs.items():
            named.setdefault(key, (name, seed))
    if planned.zero_shot:
        named.setdefault(planned.zero_shot, ("untrained model", 0))
    kind = "scripts" if scripts else "runs"
    read = _script if scripts else run_row
    places = _places(store.root / kind)
    rows = [{"run": key, "arm": arm, "seed": seed, **read(places.get(key))} for key, (arm, seed) in named.items()]
    if planned.repeat:
        place = _places(folder / "repeat" / kind).get(planned.repeat)
        seed = planned.spec.seeds[0]
        rows.append({"run": planned.repeat, "arm": "baseline, the first seed again", "seed": seed, **read(place)})
    return rows


def _places(root: Path) -> dict[str, Path]:
    return {path.name[:12]: path for path in root.iterdir() if path.is_dir()} if root.is_dir() else {}


def run_row(path: Path | None) -> dict[str, Any]:
    """One run as a line of `runs.jsonl`: state, spec, result, environment, evaluations, which test rows were right."""
    if path is None:
        return {"state": "missing"}
    folder = RunFolder(path)
    found: dict[str, Any] = {"state": "done" if folder.is_done else "unfinished"}
    for name, file in (("spec", folder.spec), ("result", folder.result), ("environment", folder.env)):
        if file.exists():
            found[name] = read_json(file)
    if folder.resolved.exists():
        found["resolved"] = read_json(folder.resolved)
    if folder.evals.exists():
        found["evaluations"] = read_jsonl(folder.evals, torn_tail=True)
    if folder.is_done and folder.predictions.exists():
        scored = sorted(read_jsonl(folder.predictions), key=lambda row: str(row["example_id"]))
        found["correct"] = "".join(str(int(row["predicted"] == row["label"])) for row in scored)
        found["rows_sha256"] = text_sha256("\n".join(str(row["example_id"]) for row in scored))
    return found


def _script(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {"state": "missing"}
    folder = ScriptFolder(path)
    found: dict[str, Any] = {"state": "done" if folder.is_done else "unfinished", "status": folder.read_status()}
    for name in ("spec", "result", "env"):
        if (path / f"{name}.json").exists():
            found["environment" if name == "env" else name] = read_json(path / f"{name}.json")
    return found
