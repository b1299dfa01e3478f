"""Whether two results folders hold the same, apart from times, and whether anything was left behind."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["differences", "held_replies", "left_behind", "plain_report", "records", "report_differences"]

TIMES = ("_s", "_s_median")
MACHINE = frozenset(
    {"updated", "pid", "peak_memory_bytes", "training_peak_bytes", "memory_extra_bytes", "latency_s", "files"}
)
"""What a machine did, and sizes of files (`files`), which times are a part of."""
MEMORY = frozenset(name for name in MACHINE if name.endswith("_bytes"))
NOT_RECORDS = frozenset({"log.txt", "sessions.jsonl", "index.sqlite", "progress.json", "ray-worker.txt"})
REPORT = frozenset({"report.html", "report.md", "report.tex", "report.json", "runs.csv", "corpora.csv"})


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        kept = {key: each for key, each in value.items() if key not in MACHINE and not key.endswith(TIMES)}
        return {key: _timeless(each) for key, each in kept.items()}
    return [_timeless(each) for each in value] if isinstance(value, list) else value


def records(store: Path) -> dict[str, Any]:
    """Everything on disk that is a record, by path: JSON without times and process facts, other files as bytes.

    The reply cache counts as a set of replies: which of its files holds one depends on who asked.
    """
    found: dict[str, Any] = {}
    for path in sorted(store.rglob("*")):
        name = str(path.relative_to(store))
        if path.is_dir() or path.name in NOT_RECORDS or path.name in REPORT or path.name.endswith(".lock"):
            continue
        if name.startswith("chat-cache/"):
            continue
        if path.name == "DONE" and path.parent.parent.name == "corpora":
            try:
                hashes = json.loads(path.read_bytes())["sha256"]
            except ValueError:
                found[name] = "not JSON"
                continue
            # These hold times; what they say otherwise is compared as their own.
            found[name] = {key: value for key, value in hashes.items() if key not in ("card.json", "README.md")}
        elif path.suffix in (".json", ".jsonl"):
            try:
                values = [json.loads(line) for line in _values(path)]
            except ValueError:
                found[name] = "not JSON"
                continue
            found[name] = [_timeless(value) for value in values]
        elif path.name == "README.md":
            found[name] = [line for line in path.read_text("utf-8").splitlines() if " s" not in line]
        else:
            found[name] = path.read_bytes()
    replies = {}
    for segment in sorted(store.glob("chat-cache/segment-*.jsonl")):
        for line in segment.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):  # a torn last line stays until somebody writes there again
                row = json.loads(line)
                replies[row["id"]] = _timeless(row["reply"])
    found["chat-cache"] = dict(sorted(replies.items()))
    return found


def _values(path: Path) -> list[bytes]:
    data = path.read_bytes()
    return [data] if path.suffix == ".json" else data.splitlines()


def differences(expected: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """Files that are missing, too many, or other than expected; with the first place where they differ."""
    said = [f"missing: {name}" for name in expected.keys() - found.keys()]
    said += [f"too many: {name}" for name in found.keys() - expected.keys()]
    said += [
        f"{name}: {_first(expected[name], found[name])}"
        for name in expected.keys() & found.keys()
        if expected[name] != found[name]
    ]
    return sorted(said)


def _first(one: Any, other: Any, place: str = "") -> str:
    if isinstance(one, dict) and isinstance(other, dict):
        for key in [*one, *other]:
            if one.get(key) != other.get(key):
                return _first(one.get(key), other.get(key), f"{place}.{key}")
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for index, (a, b) in enumerate(zip(one, other, strict=True)):
            if a != b:
                return _first(a, b, f"{place}[{index}]")
    return f"{place}: {str(one)[:120]!r} is {str(other)[:120]!r}"


def left_behind(store: Path) -> list[str]:
    """Half files, checkpoints of finished runs, and locks that somebody still holds."""
    said = [f"half file: {path.relative_to(store)}" for path in store.rglob(".tmp-*")]
    for path in store.glob("runs/*/checkpoint-*"):
        if (path.parent / "DONE").exists():
            said.append(f"left over: {path.relative_to(store)}")
    for path in store.rglob("*.lock"):
        handle = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            said.append(f"held: {path.relative_to(store)}")
        finally:
            os.close(handle)
    return sorted(said)


def held_replies(store: Path) -> set[str]:
    """Ids of the replies that are whole in the cache now."""
    found = set()
    for segment in store.glob("chat-cache/segment-*.jsonl"):
        for line in segment.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):
                found.add(json.loads(line)["id"])
    return found


def _with_plain_times(store: Path, to: Path) -> Path:
    """A copy of the records with every time and amount of memory set to one value."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                key: (1.0 if key.endswith(TIMES) else 10**6)
                if isinstance(each, int | float) and (key.endswith(TIMES) or key in MEMORY)
                else plain(each)
                for key, each in value.items()
                if key != "files"  # sizes, which are no longer right when times are other
            }
        return [plain(each) for each in value] if isinstance(value, list) else value

    shutil.rmtree(to, ignore_errors=True)  # of a campaign that was interrupted
    shutil.copytree(store, to, ignore=shutil.ignore_patterns("studies", "chat-cache", "log.txt", "*.lock"))
    for path in (*to.rglob("*.json"), *to.rglob("*.jsonl")):
        lines = [path.read_text("utf-8")] if path.suffix == ".json" else path.read_text("utf-8").splitlines()
        with suppress(ValueError):  # a file that was cut short stays as it is
            path.write_text(
                "".join(json.dumps(plain(json.loads(line)), ensure_ascii=False) + "\n" for line in lines), "utf-8"
            )
    return to


def plain_report(study: Path, store: Path, scratch: Path) -> dict[str, str]:
    """The report that a store's records give when every time in them is the same, by file."""
    from optaware.store import Store
    from optaware.study import load_study, plan_study, report_study

    root = _with_plain_times(store, scratch / "plain")
    graph = plan_study(load_study(study))
    html = report_study(graph, Store(root))
    files = {path.name: path.read_text("utf-8") for path in sorted(html.parent.iterdir()) if path.suffix != ".json"}
    shutil.rmtree(root)
    return files


def report_differences(study: Path, store: Path, expected: dict[str, str], scratch: Path) -> list[str]:
    """What is wrong with a store's report: other than the expected one apart from times, or not of its own records."""
    from optaware.store import Store
    from optaware.study import load_study, plan_study, report_study

    found = plain_report(study, store, scratch)
    said = [f"report, {name}: not as undisturbed" for name in expected if found.get(name) != expected[name]]
    graph = plan_study(load_study(study))
    folder = Store(store).study_folder(graph.study)
    before = {
        path.name: path.read_text("utf-8")
        for path in sorted(folder.iterdir())
        if path.suffix in (".html", ".md", ".csv")
    }
    again = scratch / "again"
    shutil.copytree(store, again, ignore=shutil.ignore_patterns("studies", "chat-cache", "log.txt", "*.lock"))
    html = report_study(graph, Store(again))
    for name, text in before.items():
        if (html.parent / name).read_text("utf-8") != text:
            said.append(f"report, {name}: is not what its records give")
    shutil.rmtree(again)
    return said
