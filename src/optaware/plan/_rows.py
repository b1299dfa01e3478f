from __future__ import annotations

import re
from typing import Any, Literal

from optaware.plan._entry import FIELDS, entry_of_row
from optaware.plan._json_text import Brackets, clean, loads, loads_mended
from optaware.plan._limits import check_size
from optaware.plan._notes import Notes
from optaware.records import PlanItem

__all__ = ["read_rows"]

_FENCE = re.compile(r"[`~]{3,}[^`{\[]{0,40}")
_LIST_MARK = re.compile(r"(?:[-*+]|[0-9]{1,4}[.)])[ \t]+(?=[{\[])")


def read_rows(
    text: str, where: str, notes: Notes, first_line: int = 1
) -> tuple[Literal["json", "jsonl"], list[PlanItem]]:
    """Read entries as JSONL, a JSON array, or JSON objects among other lines; one bad entry never loses the others.

    Args:
        text: The text, without the tags of a reply.
        where: What the text is called in errors.
        notes: Takes what concerns no single entry.
        first_line: Number of the text's first line.

    Raises:
        InputError: It is too large to be one plan.
    """
    check_size(0, len(text), where)
    try:
        whole = loads(text)
    except ValueError:
        return "jsonl", _Lines(where, notes).read(text, first_line)
    rows = _array(whole, notes)
    if rows is None:
        return "jsonl", _Lines(where, notes).read(text, first_line)
    check_size(len(rows), 0, where)
    return "json", [_item_of(row) for row in rows]


def _array(whole: Any, notes: Notes) -> list[Any] | None:
    """The entries of a JSON array, or of an object that holds nothing but one array of objects."""
    if isinstance(whole, list):
        return whole
    if not isinstance(whole, dict) or set(FIELDS) & set(whole):
        return None
    arrays = [key for key, value in whole.items() if isinstance(value, list) and value and isinstance(value[0], dict)]
    if len(arrays) != 1:
        return None
    notes.repaired("wrapper", f"an object with {', '.join(whole)}", f"its array {arrays[0]}")
    return list(whole[arrays[0]])


def _item_of(row: Any) -> PlanItem:
    notes = Notes()
    entry = None
    try:
        entry = entry_of_row(clean(row, notes), notes)
    except RecursionError:
        notes.error("entry-malformed", "an entry", "brackets nested too deep", "Write a flatter value.")
    return PlanItem(entry=entry, diagnostics=tuple(notes.diagnostics), repairs=tuple(notes.repairs))


class _Lines:
    """Finds JSON objects line by line; an object that is not closed ends where the next one begins."""

    def __init__(self, where: str, notes: Notes) -> None:
        self.where = where
        self.notes = notes
        self.items: list[PlanItem] = []
        self.open: list[str] = []
        self.open_line = 0
        self.indent = 0
        self.brackets = Brackets()
        self.prose: list[str] = []
        self.prose_line = 0

    def read(self, text: str, first_line: int) -> list[PlanItem]:
        """All entries of the text, understood or not, in order."""
        at = first_line
        for at, line in enumerate(text.split("\n"), start=first_line):
            self._line(line, at)
        self._cut_off()
        self._end_of_prose()
        return self.items

    def _line(self, line: str, at: int) -> None:
        rest = line.strip()
        indent = len(line) - len(line.lstrip())
        if self.open:
            if not (rest.startswith("{") and indent <= self.indent) and not _FENCE.fullmatch(rest):
                end = self.brackets.read(line)
                self.open.append(line if end is None else line[:end])
                if end is None:
                    return
                self._entry("\n".join(self.open), self.open_line)
                self.open = []
                rest = line[end:].strip()
            else:
                self._cut_off()
        while rest := rest.lstrip(" \t,;[]"):
            rest = self._piece(rest, indent, at)

    def _piece(self, rest: str, indent: int, at: int) -> str:
        """Take what stands first in a line; the remainder of the line."""
        if _FENCE.fullmatch(rest):
            self.notes.repaired("code-fence", rest, "", at)
            return ""
        if mark := _LIST_MARK.match(rest):
            self.notes.repaired("list-mark", mark[0], "", at)
            return rest[mark.end() :]
        if rest[0] != "{":
            self._prose(rest, at)
            return ""
        self._end_of_prose()
        self.brackets = Brackets()
        end = self.brackets.read(rest)
        if end is None:
            self.open, self.open_line, self.indent = [rest], at, indent
            return ""
        self._entry(rest[:end], at)
        return rest[end:]

    def _entry(self, text: str, at: int) -> None:
        check_size(len(self.items) + 1, 0, self.where)
        notes = Notes(at)
        entry = None
        try:
            row = loads_mended(text, notes)
        except ValueError as error:
            notes.error("entry-malformed", text, f"not valid JSON ({error})", "Correct the object.")
        else:
            entry = entry_of_row(row, notes)
        self._add(PlanItem(entry=entry, source=text, line=at), notes)

    def _cut_off(self) -> None:
        if not self.open:
            return
        check_size(len(self.items) + 1, 0, self.where)
        text, self.open = "\n".join(self.open), []
        notes = Notes(self.open_line)
        notes.error("entry-cut-off", text, "its closing bracket is missing", "Complete the object.")
        self._add(PlanItem(entry=None, source=text, line=self.open_line), notes)

    def _add(self, item: PlanItem, notes: Notes) -> None:
        self.items.append(
            item.model_copy(update={"diagnostics": tuple(notes.diagnostics), "repairs": tuple(notes.repairs)})
        )

    def _prose(self, rest: str, at: int) -> None:
        if not self.prose:
            self.prose_line = at
        self.prose.append(rest)

    def _end_of_prose(self) -> None:
        """Text between entries: ordinary words are set aside with a warning, remains of an entry are an error."""
        if not self.prose:
            return
        text, self.prose = "\n".join(self.prose), []
        if any(f'"{field}"' in text for field in FIELDS):
            why = "it looks like a part of an entry whose beginning is missing"
            self.notes.error("entry-cut-off", text, why, "Write the whole object.", self.prose_line)
        else:
            why = "it stands outside the entries"
            self.notes.warn("text-ignored", text, why, "Nothing to do if it is only talk.", self.prose_line)
