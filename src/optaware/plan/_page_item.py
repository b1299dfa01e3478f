from __future__ import annotations

import ast
import re

from optaware.plan._entry import MAX_VALUES, metrics_of, one_line, read_action
from optaware.plan._notes import Notes
from optaware.plan._split import split_outside_brackets
from optaware.records import AblationEntry, PlanItem, PlanValue
from optaware.records.plan import read_literal

__all__ = ["is_entry_heading", "is_structure", "read_item", "starts_entry"]

_HEADING = re.compile(r"#{2,6}(?:[ \t](.*))?", re.S)
_FIELD = re.compile(r" ?[-*+][ \t]+\*\*([A-Za-z_ ]{1,20}):?\*\*[ \t]*:?(.*)", re.S)
_BULLET = re.compile(r"[ \t]*[-*+](?:[ \t](.*))?", re.S)
_LABELS = {
    "name": "name",
    "ablatedpart": "ablated_part",
    "action": "action",
    "replacement": "replacement",
    "replacements": "replacement",
    "metrics": "metrics",
    "metric": "metrics",
}
_NOTHING = ("none", "null", "n/a", "-", "[]")


def is_entry_heading(line: str) -> bool:
    """Whether a line of the plan's box begins an entry."""
    return _HEADING.fullmatch(line) is not None


def is_structure(line: str) -> bool:
    """Whether a line inside a value would be read as something else than a part of that value."""
    return not line.strip() or line.lstrip()[0] in "#-*+<"


def _field(line: str) -> tuple[str, str] | None:
    match = _FIELD.fullmatch(line)
    label = _LABELS.get(re.sub(r"[^a-z]", "", match[1].lower())) if match else None
    return (label, match[2]) if match and label else None


def starts_entry(line: str) -> bool:
    """Whether a line gives the ablated part, as every entry does once."""
    field = _field(line)
    return field is not None and field[0] == "ablated_part"


def read_item(rows: list[str], line: int | None) -> PlanItem:
    """One entry of a page or Markdown text.

    Args:
        rows: Its lines, the heading first, with their line ends.
        line: Number of the first line, counted from 1.
    """
    reader = _ItemReader(line)
    for row in rows:
        reader.read(row[:-1] if row.endswith("\n") else row)
    entry = reader.entry()
    notes = reader.notes
    return PlanItem(
        entry=entry,
        source="".join(rows),
        line=line,
        diagnostics=tuple(notes.diagnostics),
        repairs=tuple(notes.repairs),
    )


class _ItemReader:
    """Reads an entry line by line; the field that the last lines belonged to is `current`."""

    def __init__(self, line: int | None) -> None:
        self.notes = Notes(line)
        self.at = (line or 1) - 1
        self.fields: dict[str, str] = {}
        self.values: list[str] = []
        self.metrics: list[str] = []
        self.current: str | None = None
        self.indented = False
        self.after_blank = False

    def read(self, line: str) -> None:
        """Take the next line."""
        self.at += 1
        heading = _HEADING.fullmatch(line)
        field = _field(line)
        if heading and not self.fields:
            self._begin("name", heading[1] or "")
        elif field:
            self._begin(*field)
        elif not line.strip():
            self.after_blank = True
            return
        elif self._is_other_field(line):
            self.current = "ignored"
            self.fields.setdefault("ignored", "")
            self.notes.warn(
                "field-ignored", line, "an entry has no such field", "It is kept on the page only.", self.at
            )
        elif not self._item(line) and not self._continuation(line):
            self.notes.error(
                "line-not-understood",
                line,
                "it belongs to no field of the entry",
                "Write `- **Field**: text`.",
                self.at,
            )
        self.after_blank = False

    def _begin(self, field: str, text: str) -> None:
        self.current = field
        if field in self.fields:
            self.current = None
            self.notes.error("field-twice", field, "an entry has it once", "Keep one of the two.", self.at)
            return
        self.fields[field] = text.strip()

    def _is_other_field(self, line: str) -> bool:
        """Whether a line is a field that entries do not have, such as a rationale; in a flat list it is a value."""
        flat = self.current == "replacement" and not self.indented
        return _FIELD.fullmatch(line) is not None and not flat

    def _item(self, line: str) -> bool:
        bullet = _BULLET.fullmatch(line)
        if not bullet or self.current not in ("replacement", "metrics"):
            return False
        if self.current == "metrics":
            self.metrics.append((bullet[1] or "").strip())
        else:
            self.values.append(bullet[1] or "")
            self.indented = self.indented or line[:1] in (" ", "\t")
        return True

    def _continuation(self, line: str) -> bool:
        if self.after_blank or self.current is None or self.current in ("name", "action"):
            return False
        if self.current == "replacement" and self.values:
            self.values[-1] += "\n" + line
        elif self.current == "metrics" and self.metrics:
            self.metrics[-1] += " " + line.strip()
        else:
            self.fields[self.current] += "\n" + line.strip()
        return True

    def entry(self) -> AblationEntry | None:
        """The entry, or None when it was not understood."""
        notes = self.notes
        for field in ("name", "ablated_part", "action"):
            if field not in self.fields:
                notes.error("field-missing", field, "an entry needs it", f"Add {field}.")
        name, part = (one_line(self.fields[f], f, notes) if f in self.fields else "" for f in ("name", "ablated_part"))
        action = read_action(self.fields["action"], notes) if "action" in self.fields else None
        replacement = self._replacement()
        metrics = metrics_of(
            [*split_outside_brackets(self.fields.get("metrics", "").replace("\n", " ")), *self.metrics],
            notes,
            joined=True,
        )
        if not name or not part or action is None:
            return None
        return AblationEntry(name=name, ablated_part=part, action=action, replacement=replacement, metrics=metrics)

    def _replacement(self) -> tuple[PlanValue, ...] | dict[str, PlanValue] | None:
        if "replacement" not in self.fields:
            return None
        inline = self.fields["replacement"].strip()
        if len(self.values) > MAX_VALUES:
            given = f"{len(self.values)} replacements"
            self.notes.error("too-many-values", given, f"an entry may have {MAX_VALUES}", "List fewer alternatives.")
            return None
        values = [PlanValue.read(text.strip()) for text in self.values]
        if not inline:
            return tuple(values)
        if inline.lower() in _NOTHING and not values:
            self.notes.repaired("no-replacement", inline, "")
            return None
        if not values and (named := _inline_dict(inline)) is not None:
            return named
        return (*_inline_list(inline, self.notes), *values)


def _inline_list(text: str, notes: Notes) -> list[PlanValue]:
    literal = read_literal(text) if text.startswith("[") else None
    texts = [text] if not isinstance(literal, list) else [v if isinstance(v, str) else repr(v) for v in literal]
    notes.repaired("replacement-in-line", text, f"a list of {len(texts)}")
    return [PlanValue.read(item.strip()) for item in texts[:MAX_VALUES]]


def _inline_dict(text: str) -> dict[str, PlanValue] | None:
    literal = read_literal(text) if text.startswith("{") else None
    if not isinstance(literal, dict) or len(literal) > MAX_VALUES:
        return None
    node = ast.parse(text, mode="eval").body
    written = {}
    if isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant):
                written[key.value] = ast.get_source_segment(text, value) or ""
    return {key: _named_value(value, written.get(key, "")) for key, value in literal.items()}


def _named_value(value: object, written: str) -> PlanValue:
    if isinstance(value, str):
        text = value.strip()
        read = PlanValue.read(text)
        return read if read.kind in ("percent", "pair") else PlanValue(text=text, kind="text", value=text)
    read = PlanValue.read(written.strip())  # the number as written: 1e-3 stays 1e-3
    return read if read.kind in ("integer", "number") else PlanValue.read(repr(value))
