from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

from optaware._io import read_json, read_jsonl
from optaware.errors import InputError, Problem, ProblemList
from optaware.records import (
    CorpusEvidence,
    CorpusSpec,
    DatasetCard,
    Decision,
    Prediction,
    RunResult,
    RunSpec,
    RunStatus,
    parse_record,
    short_id,
)
from optaware.store import RunFolder

__all__ = ["ReportCorpus", "ReportRun", "RunState", "load_report_corpus", "load_report_run"]

_LARGE = 200_000
"""Bytes of a step file up to which all of it is read."""
_SPREAD = 800
"""Rows taken of a larger one: enough for a curve of 120 points, each a mean over a twentieth of the run."""
RunState = Literal["done", "failed", "diverged", "missing"]


T = TypeVar("T")


class _Step(TypedDict, total=False):
    step: Any
    loss: Any
    forwards: Any


_PREDICTIONS = TypeAdapter(list[Prediction])
_STEPS = TypeAdapter(list[_Step])


def _at_once(rows: TypeAdapter[list[T]], lines: list[bytes]) -> list[T] | None:
    """All lines parsed and checked in one go, which takes a fraction of the time; None where anything is amiss, for
    the way that says what and where."""
    lines = [line for line in lines if line and not line.isspace()]
    text = b"[" + b",".join(lines) + b"]"
    if b"NaN" in text or b"Infinity" in text:  # read here, but not JSON
        return None
    try:
        found = rows.validate_json(text)
    except ValidationError:
        return None
    return found if len(found) == len(lines) else None


@dataclass(frozen=True)
class ReportRun:
    """One run as the report sees it. Long files are read when they are asked for, and not kept.

    Attributes:
        run_id: First 12 digits of the spec's fingerprint.
        spec: What was asked for.
        folder: The run's folder.
        state: `done`; `diverged` (finished, without a usable loss); `failed`; `missing` (not run, or not to its end).
        result: What came out; None unless the run finished.
        detail: Why it is not done, in words.
        environment: The snapshot of versions and machine, empty when there is none.
    """

    run_id: str
    spec: RunSpec
    folder: Path
    state: RunState
    result: RunResult | None = None
    detail: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict)

    def predictions(self) -> list[Prediction]:
        """The scored test rows.

        Raises:
            InputError: The file is missing or a line is malformed; all faults at once.
        """
        path = self.folder / "predictions.jsonl"
        if path.exists() and (rows := _at_once(_PREDICTIONS, path.read_bytes().split(b"\n"))) is not None:
            return rows
        problems = ProblemList(str(path))
        found = []
        for number, row in enumerate(read_jsonl(path), start=1):
            with problems.collecting():
                found.append(parse_record(Prediction, row, f"{path}:{number}"))
        problems.raise_if_any()
        return found

    def steps(self) -> list[dict[str, Any]]:
        """Step, loss and forward passes of the rows of `steps.jsonl`, evenly spread over the file where it has very
        many; empty without one."""
        path = self.folder / "steps.jsonl"
        if not path.exists():
            return []
        lines = path.read_bytes().split(b"\n")
        if sum(map(len, lines)) > _LARGE:
            lines = lines[:-1]  # what follows the last newline is empty or torn
            lines = lines[:: max(1, len(lines) // _SPREAD)]
        rows = _at_once(_STEPS, lines)
        if rows is not None:
            return [dict(row) for row in rows]
        names = _Step.__annotations__
        return [{name: row[name] for name in names if name in row} for row in self._rows("steps.jsonl")]

    def evals(self) -> list[dict[str, Any]]:
        """The rows of `eval.jsonl` as plain values; empty when there is no file."""
        return self._rows("eval.jsonl")

    def _rows(self, name: str) -> list[dict[str, Any]]:
        path = self.folder / name
        return [row for row in read_jsonl(path, torn_tail=True) if isinstance(row, dict)] if path.exists() else []


@dataclass(frozen=True)
class ReportCorpus:
    """One finished corpus as the report sees it.

    Attributes:
        corpus_id: First 12 digits of the spec's fingerprint.
        spec: What was asked for.
        card: The counts.
        decisions: What the gate did, row by row.
        evidence: What `optaware data evidence` found; None: it was not asked.
    """

    corpus_id: str
    spec: CorpusSpec
    card: DatasetCard
    decisions: tuple[Decision, ...] = ()
    evidence: CorpusEvidence | None = None


_FOLDER = re.compile(r"[0-9a-f]{12}-")


def load_report_run(folder: Path, spec: RunSpec | None = None) -> ReportRun:
    """Read one run's folder.

    Args:
        folder: The run's folder; it need not exist when `spec` is given.
        spec: What the run was to be, for a run that was never started.

    Raises:
        InputError: There is no spec to be had, or a record is malformed.
    """
    if (folder / "spec.json").exists():
        spec = parse_record(RunSpec, read_json(folder / "spec.json"), str(folder / "spec.json"))
    if spec is None:
        raise InputError(
            Problem("run-unknown", str(folder), "it holds no spec.json", "Give the folder of a run.", str(folder))
        )
    # An earlier version may have made the id otherwise; what a report names is the folder that is there.
    run_id = folder.name[:12] if _FOLDER.match(folder.name) else short_id(spec)
    place = RunFolder(folder)
    if detail := place.damage():
        return ReportRun(run_id, spec, folder, "missing", detail=detail)
    env_file, result_file = folder / "env.json", folder / "result.json"
    environment = read_json(env_file) if env_file.exists() else {}
    if place.done.exists():
        result = parse_record(RunResult, read_json(result_file), str(result_file))
        return ReportRun(run_id, spec, folder, result.outcome, result, result.detail, environment)
    status_file = folder / "status.json"
    if not status_file.exists():
        return ReportRun(run_id, spec, folder, "missing", detail="not started", environment=environment)
    status = parse_record(RunStatus, read_json(status_file), str(status_file))
    if status.state == "failed":
        return ReportRun(run_id, spec, folder, "failed", detail=status.detail, environment=environment)
    detail = f"not finished: {status.state} at step {status.step} of {status.steps}"
    return ReportRun(run_id, spec, folder, "missing", detail=detail, environment=environment)


def load_report_corpus(folder: Path) -> ReportCorpus:
    """Read one finished corpus's folder.

    Raises:
        InputError: A file is missing or malformed; all faults of the decisions at once.
    """
    spec = parse_record(CorpusSpec, read_json(folder / "spec.json"), str(folder / "spec.json"))
    card = parse_record(DatasetCard, read_json(folder / "card.json"), str(folder / "card.json"))
    path = folder / "decisions.jsonl"
    problems = ProblemList(str(path))
    decisions = []
    for number, row in enumerate(read_jsonl(path), start=1):
        with problems.collecting():
            decisions.append(parse_record(Decision, row, f"{path}:{number}"))
    problems.raise_if_any()
    found = folder / "evidence.json"
    evidence = parse_record(CorpusEvidence, read_json(found), str(found)) if found.is_file() else None
    if evidence is not None and evidence.corpus_id != card.corpus_id:
        evidence = None
    return ReportCorpus(card.corpus_id, spec, card, tuple(decisions), evidence)
