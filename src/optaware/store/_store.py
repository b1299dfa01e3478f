from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from optaware.errors import InputError, Problem
from optaware.records import CorpusSpec, RunSpec, StudySpec, short_id
from optaware.records.plan_run import ScriptSpec
from optaware.store._folder import RunFolder
from optaware.store._index import refresh_index

__all__ = ["Store"]

_RUN_NAME = re.compile(r"^[0-9a-f]{12}-")


class Store:
    """A results folder: runs and corpora by the hash of their spec, replies by the hash of their request.

    Two studies that need the same run or corpus share it, because the spec alone decides the folder.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def run_folder(self, spec: RunSpec) -> RunFolder:
        """The folder of a run (made by whoever runs it)."""
        return RunFolder(self.root / "runs" / f"{short_id(spec)}-{spec.slug}")

    def corpus_folder(self, spec: CorpusSpec) -> Path:
        """The folder of a rewritten corpus."""
        return self.root / "corpora" / f"{short_id(spec)}-{spec.slug}"

    def study_folder(self, spec: StudySpec) -> Path:
        """The folder of a study's own files: its spec, the list of its runs and its reports."""
        return self.root / "studies" / f"{short_id(spec)}-{spec.name}"

    def script_folder(self, spec: ScriptSpec) -> Path:
        """The folder of one run of a stranger's script."""
        return self.root / "scripts" / f"{short_id(spec)}-{spec.slug}"

    def plan_folder(self, key: str, name: str) -> Path:
        """The folder of a plan's own files: binding, list of runs, report. `key` stands for what is asked for."""
        return self.root / "plans" / f"{key[:12]}-{name}"

    def chat_cache(self) -> Path:
        """Replies of chat models, by the hash of their request."""
        return self.root / "chat-cache"

    def runs(self) -> list[RunFolder]:
        """All run folders, by name."""
        folder = self.root / "runs"
        if not folder.is_dir():
            return []
        return [RunFolder(path) for path in sorted(folder.iterdir()) if _RUN_NAME.match(path.name) and path.is_dir()]

    def index(self) -> list[dict[str, Any]]:
        """A row of figures per run folder, by name; quick where little has changed since it was last asked for."""
        return refresh_index(self.root)

    def find_corpus(self, corpus_id: str) -> Path:
        """The folder of the corpus with this id.

        Raises:
            InputError: There is none.
        """
        place = self.root / "corpora"
        # Not glob(): what was given may be a path, or hold its signs.
        found = (
            sorted(each for each in place.iterdir() if each.name.startswith(f"{corpus_id}-")) if place.is_dir() else []
        )
        if not found:
            raise InputError(
                Problem(
                    "corpus-missing",
                    corpus_id,
                    f"there is no such corpus in {place}, and no folder with a spec.json",
                    "Make it with `optaware data rewrite` or run the study that needs it.",
                )
            )
        return found[0]

    def find_run(self, prefix: str) -> RunFolder:
        """The one run whose id begins with `prefix` (or whose folder path it is).

        Raises:
            InputError: There is none, or more than one.
        """
        path = Path(prefix)
        if (path / "spec.json").is_file():
            return RunFolder(path)
        found = [run for run in self.runs() if run.path.name.startswith(prefix)] if prefix else []
        if len(found) == 1:
            return found[0]
        why = f"{len(found)} runs begin so" if found else f"there is no such run in {self.root / 'runs'}"
        raise InputError(
            Problem("run-unknown", prefix, why, "Give more digits, or see `optaware runs list` for the ids.")
        )
