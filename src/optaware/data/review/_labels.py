"""The labels file: one line a label, appended as it is made, by one labeller at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

from optaware._io import JsonlAppender, lock, read_jsonl, text_sha256
from optaware.errors import InputError, ProblemList
from optaware.records import Fault, PairLabel, ReviewPair, parse_record

__all__ = ["LabelsFile", "read_labels", "standing"]


def read_labels(path: Path) -> list[PairLabel]:
    """All lines of a labels file, in order; a torn last line is left out.

    Raises:
        InputError: The file is missing, or lines are malformed (all at once).
    """
    problems, found = ProblemList(str(path)), []
    for number, row in enumerate(read_jsonl(path, torn_tail=True), start=1):
        with problems.collecting():
            found.append(parse_record(PairLabel, row, f"{path}: row {number}"))
    problems.raise_if_any()
    return found


def standing(labels: Iterable[PairLabel]) -> dict[str, dict[str, PairLabel]]:
    """The labels that stand: the last one of each labeller on each pair, without those that were withdrawn.

    Returns:
        labeller -> pair id -> label.
    """
    found: dict[str, dict[str, PairLabel]] = {}
    for label in labels:
        own = found.setdefault(label.labeller, {})
        own.pop(label.pair_id, None)  # a later label stands at its own place in the order
        if label.answer != "withdrawn":
            own[label.pair_id] = label
    return found


class LabelsFile:
    """Appends the labels of one labeller, and takes them back one by one.

    The file may hold labels by others; they are left alone. While it is open no other process may write to it.

    Args:
        path: The file; it is made when it is missing.
        labeller: Whose labels are appended.

    Raises:
        InputError: Another process has the file open, lines are malformed, or the labeller has no name.
    """

    def __init__(self, path: Path, labeller: str) -> None:
        if not labeller.strip():
            raise InputError.of("labeller-missing", "no name", "labels say whose they are", "Give --labeller NAME.")
        self.path, self.labeller = path, labeller.strip()
        self._stack = ExitStack()
        if not self._stack.enter_context(lock(path.with_name(f".{path.name}.lock"), wait=False)):
            self._stack.close()
            raise InputError.of(
                "labels-busy",
                str(path),
                "another process is writing labels to it",
                "End that one first, or give another file with --labels.",
            )
        try:
            lines = read_labels(path) if path.is_file() else []
            self._appender = self._stack.enter_context(JsonlAppender(path))
        except BaseException:
            self._stack.close()
            raise
        self._current: dict[str, PairLabel] = {}
        self._acts: list[tuple[str, PairLabel | None]] = []
        for line in lines:
            if line.labeller == self.labeller:
                self._note(line)

    def __enter__(self) -> LabelsFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file and let others write to it."""
        self._stack.close()

    @property
    def current(self) -> Mapping[str, PairLabel]:
        """The labeller's labels that stand, by pair."""
        return self._current

    def add(
        self,
        pair: ReviewPair,
        answer: str,
        *,
        faults: Sequence[Fault] = (),
        note: str = "",
        seconds: float | None = None,
    ) -> PairLabel:
        """Append one label; when this returns, it survives a crash."""
        label = self._label(pair, answer, faults=tuple(faults), note=note.strip(), seconds=seconds)
        self._append(label)
        return label

    def undo(self, pairs: Mapping[str, ReviewPair]) -> str | None:
        """Take back the labeller's latest act on one of `pairs`, also one of an earlier session.

        Returns:
            The id of the pair, whose earlier label stands again; None when there is nothing to take back.
        """
        for name, before in reversed(self._acts):
            if name not in pairs:
                continue
            if before is None:
                line = self._label(pairs[name], "withdrawn", undo=True)
            else:
                line = before.model_copy(update={"at": _now(), "undo": True})
            self._append(line)
            return name
        return None

    def _append(self, line: PairLabel) -> None:
        self._appender.append(line.to_json())
        self._note(line)

    def _note(self, line: PairLabel) -> None:
        if line.undo:
            at = next((n for n in reversed(range(len(self._acts))) if self._acts[n][0] == line.pair_id), None)
            if at is not None:
                del self._acts[at]
        else:
            self._acts.append((line.pair_id, self._current.get(line.pair_id)))
        if line.answer == "withdrawn":
            self._current.pop(line.pair_id, None)
        else:
            self._current[line.pair_id] = line

    def _label(self, pair: ReviewPair, answer: str, **more: object) -> PairLabel:
        return parse_record(
            PairLabel,
            {
                "pair_id": pair.id,
                "task": pair.task,
                "example_id": pair.example_id,
                "original": pair.original,
                "original_sha256": text_sha256(pair.original),
                "rewritten": pair.rewritten,
                "answer": answer,
                "labeller": self.labeller,
                "at": _now(),
                "origin": pair.origin,
                **more,
            },
            str(self.path),
        )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
