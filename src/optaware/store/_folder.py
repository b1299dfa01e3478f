from __future__ import annotations

import json
import os
import shutil
from datetime import UTC, datetime
from pathlib import Path

from optaware._io import read_json, storage_errors, write_json, write_text
from optaware.records import RunResult, RunSpec, RunStatus, parse_record

__all__ = ["RunFolder"]

_LATER = frozenset({"result.json", "status.json", "DONE", ".lock", "log.txt", "progress.json", "ray-worker.txt"})
"""Files that are written when or after the sizes are taken, or that hold nothing of the outcome."""


class RunFolder:
    """The files of one run. The folder is the truth about the run; everything else can be rebuilt from it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.spec = path / "spec.json"
        self.resolved = path / "resolved.json"
        self.env = path / "env.json"
        self.status = path / "status.json"
        self.steps = path / "steps.jsonl"
        self.journal = path / "journal.bin"
        self.evals = path / "eval.jsonl"
        self.predictions = path / "predictions.jsonl"
        self.result = path / "result.json"
        self.log = path / "log.txt"
        self.energy = path / "energy.json"
        self.lock = path / ".lock"
        self.done = path / "DONE"

    @property
    def run_id(self) -> str:
        """The first 12 digits of the spec's fingerprint, as the folder's name has them."""
        return self.path.name[:12]

    @property
    def is_done(self) -> bool:
        """Whether the run was finished, the marker being written last, and is still whole."""
        return self.done.exists() and not self.lost()

    def lost(self) -> str:
        """The first file that is not as long as it was when the run ended, or a result that cannot be read; else empty.

        Bytes that changed without changing their number are not found.
        """
        try:
            sizes = json.loads(self.result.read_bytes()).get("files", {})
            return next((name for name, size in sizes.items() if (self.path / name).stat().st_size != size), "")
        except FileNotFoundError as error:
            return Path(error.filename).name
        except (ValueError, AttributeError, TypeError, RecursionError, OSError):
            return self.result.name

    def damage(self) -> str:
        """What is wrong with a run that was finished, in words; empty for one that is whole or not finished."""
        if not self.done.exists() or not (lost := self.lost()):
            return ""
        return f"{lost} is not as long as it was when the run ended; the command that made the run makes it again"

    def sizes(self) -> dict[str, int]:
        """Bytes of the files that make up the run, by their path in its folder, for its result."""
        found = {}
        for path in sorted(self.path.rglob("*")):
            name = path.relative_to(self.path)
            passing = name.name in _LATER or name.name.startswith(".tmp-") or name.parts[0].startswith("checkpoint-")
            if not passing and path.is_file():
                found[name.as_posix()] = path.stat().st_size
        return found

    def read_spec(self) -> RunSpec:
        """The spec that the folder was made for."""
        return parse_record(RunSpec, read_json(self.spec), str(self.spec))

    def read_result(self) -> RunResult:
        """The result of a finished run."""
        return parse_record(RunResult, read_json(self.result), str(self.result))

    def read_status(self) -> RunStatus | None:
        """The last written status; None before the first."""
        return parse_record(RunStatus, read_json(self.status), str(self.status)) if self.status.exists() else None

    def write_spec(self, spec: RunSpec) -> None:
        """Write the spec, unless it is already there."""
        if not self.spec.exists():
            write_json(self.spec, spec.to_json())

    def write_status(self, status: RunStatus) -> None:
        """Write where the run stands, stamped with time (UTC) and process."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        write_json(self.status, status.model_copy(update={"updated": now, "pid": os.getpid()}).to_json())

    def discard_checkpoints(self) -> None:
        """Remove what an unfinished run would resume from; a forward-only run can still resume from its journal."""
        for path in sorted(self.path.glob("checkpoint-*")):
            if path.is_dir():
                with storage_errors(path):
                    (path / "state.json").unlink(missing_ok=True)
                    shutil.rmtree(path)

    def mark_done(self) -> None:
        """Write the marker that makes the run finished."""
        write_text(self.done, "")
