from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from optaware.plan._json_text import NumberText, plain
from optaware.plan._notes import Notes
from optaware.plan._split import split_outside_brackets
from optaware.records import AblationEntry, Action, PlanValue

__all__ = ["FIELDS", "MAX_VALUES", "entry_of_row", "metrics_of", "one_line", "read_action"]

FIELDS = ("name", "ablated_part", "action", "replacement", "metrics")
MAX_VALUES = 1000
_KEYS = {re.sub(r"[^a-z]", "", name): name for name in FIELDS} | {"replacements": "replacement", "metric": "metrics"}
_ACTIONS: tuple[Action, ...] = ("REPLACE", "REMOVE", "ADD")


def read_action(text: str, notes: Notes) -> Action | None:
    """REPLACE, REMOVE or ADD; another case or marks around the word are a repair, another word is an error."""
    for action in _ACTIONS:
        if text == action:
            return action
    bare = text.strip(" \t*_`\"'.").upper()
    for action in _ACTIONS:
        if bare == action:
            notes.repaired("action-spelling", text, action)
            return action
    given = f"action {text!r}" if text else "no action"
    notes.error("action-unknown", given, "an action is REPLACE, REMOVE or ADD", "Write one of the three.")
    return None


def one_line(text: str, field: str, notes: Notes) -> str:
    """A field as one line without spaces at its ends; joining lines is a repair."""
    joined = " ".join(text.split("\n")) if "\n" in text else text
    joined = joined.strip()
    if joined != text:
        notes.repaired("line-joined" if "\n" in text else "spaces-trimmed", text, joined)
    if not joined:
        notes.error("field-empty", field, "it says nothing", f"Fill in {field}.")
    return joined


def metrics_of(pieces: Iterable[str], notes: Notes, *, joined: bool) -> tuple[str, ...]:
    """Metrics, split at commas outside brackets; `joined` says that one text holding them all is the normal form."""
    listed = list(pieces)
    metrics = split_outside_brackets(", ".join(" ".join(piece.split("\n")) for piece in listed))
    if not joined and metrics != listed:
        notes.repaired("metrics-split", repr(listed), repr(metrics))
    if len(metrics) > MAX_VALUES:
        given = f"{len(metrics)} metrics"
        notes.error("too-many-values", given, f"an entry may have {MAX_VALUES}", "List fewer metrics.")
        return ()
    if not metrics:
        notes.warn("metrics-missing", "no metrics", "nothing says what is measured", "Name what is measured.")
    return tuple(metrics)


def entry_of_row(row: Any, notes: Notes) -> AblationEntry | None:
    """An entry from one JSON object (parsed by `_json_text.loads`); None when it was not understood."""
    if not isinstance(row, dict):
        notes.error("entry-not-an-object", repr(plain_or_text(row)), "an entry is a JSON object", "Write an object.")
        return None
    fields = _named(row, notes)
    name, part, action = (_text(fields, field, notes) for field in FIELDS[:3])
    chosen = read_action(action, notes) if action is not None else None
    replacement = _replacement(fields.get("replacement"), notes)
    metrics = _metrics(fields.get("metrics"), notes)
    if not name or not part or chosen is None or any(found.level == "error" for found in notes.diagnostics):
        return None
    return AblationEntry(name=name, ablated_part=part, action=chosen, replacement=replacement, metrics=metrics)


def plain_or_text(value: Any) -> Any:
    """A parsed JSON value for showing, whatever it is."""
    try:
        return plain(value)
    except ValueError:
        return type(value).__name__


def _named(row: dict[str, Any], notes: Notes) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key, value in row.items():
        name = _KEYS.get(re.sub(r"[^a-z]", "", key.lower()))
        if name is None or name in fields:
            why = "an entry has no such field" if name is None else f"{name} is given twice"
            given = f"{key} = {plain_or_text(value)!r}"
            notes.warn("field-ignored", given, why, f"The fields are {', '.join(FIELDS)}.")
            notes.repaired("field-dropped", given, "")
            continue
        if key != name:
            notes.repaired("field-name", key, name)
        fields[name] = value
    return fields


def _text(fields: dict[str, Any], field: str, notes: Notes) -> str | None:
    value = fields.get(field)
    if value is None:
        notes.error("field-missing", field, "an entry needs it", f"Add {field}.")
        return None
    if isinstance(value, NumberText):
        notes.repaired("number-as-text", value.text, repr(value.text))
        value = value.text
    if not isinstance(value, str):
        notes.error("field-not-text", f"{field} = {plain_or_text(value)!r}", "it must be text", "Write a string.")
        return None
    return one_line(value, field, notes) if field != "action" else value


def _replacement(value: Any, notes: Notes) -> tuple[PlanValue, ...] | dict[str, PlanValue] | None:
    if value is None:
        return None
    if not isinstance(value, list | dict):
        notes.repaired("replacement-as-list", repr(plain_or_text(value)), "a list of one")
        value = [value]
    if len(value) > MAX_VALUES:
        given = f"{len(value)} replacements"
        notes.error("too-many-values", given, f"an entry may have {MAX_VALUES}", "List fewer alternatives.")
        return None
    if isinstance(value, dict):
        made = {key: _value(item, notes) for key, item in value.items()}
        return {key: item for key, item in made.items() if item is not None}
    return tuple(item for item in (_value(item, notes) for item in value) if item is not None)


def _value(value: Any, notes: Notes) -> PlanValue | None:
    """A JSON value as a plan's value. A string stays a string, even "8", unless it is a percentage or `k=v`."""
    if isinstance(value, str):
        text = value.strip()
        if text != value:
            notes.repaired("spaces-trimmed", value, text)
        read = PlanValue.read(text)
        return read if read.kind in ("percent", "pair") else PlanValue(text=text, kind="text", value=text)
    try:
        text = value.text if isinstance(value, NumberText) else repr(plain(value))
    except ValueError as error:
        notes.error("value-unusable", "a replacement", str(error), "Write a shorter, flatter value.")
        return None
    read = PlanValue.read(text)
    if read.kind == "text":
        notes.error("value-unusable", text, "it is too long or too large a value", "Write it as a string.")
        return None
    return read


def _metrics(value: Any, notes: Notes) -> tuple[str, ...]:
    if value is None:
        return metrics_of([], notes, joined=True)
    if isinstance(value, str):
        notes.repaired("metrics-split", value, repr(split_outside_brackets(value)))
        return metrics_of([value], notes, joined=True)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        notes.error("metrics-not-text", repr(plain_or_text(value)), "metrics are a list of text", "Write strings.")
        return ()
    return metrics_of(value, notes, joined=False)
