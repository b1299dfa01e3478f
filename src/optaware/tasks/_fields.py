"""Columns of a row: what type each has, and what is wrong with a value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import model_validator

from optaware.errors import ProblemList
from optaware.records import Record

__all__ = ["FieldSpec", "check_fields"]


class FieldSpec(Record):
    """One column of a task.

    In a task file a field may be given by its type alone: `body: text` is `body: {type: text}`.
    """

    type: Literal["text", "integer", "number", "boolean", "text-list", "choices"]
    """`choices`: a mapping of two lists of equal length, `text` and `label`, as ARC has it."""
    description: str = ""
    allowed: tuple[str, ...] | None = None
    """The only values that a text may have."""

    @model_validator(mode="before")
    @classmethod
    def _type_alone(cls, data: Any) -> Any:
        return {"type": data} if isinstance(data, str) else data


def check_fields(specs: Mapping[str, FieldSpec], row: Mapping[str, Any], problems: ProblemList) -> dict[str, Any]:
    """The declared columns of `row`, checked; faults are added to `problems`, all of them."""
    found: dict[str, Any] = {}
    for name, spec in specs.items():
        if name not in row:
            problems.add(
                "field-missing",
                f"field {name!r}",
                f"the row has only {', '.join(map(repr, row)) or 'no fields'}",
                f"Add {name!r} ({spec.type}) to the row.",
            )
            continue
        value = row[name]
        if why := _fault(spec, value):
            given = repr(value)
            problems.add(
                "field-invalid",
                f"{name} = {given if len(given) <= 60 else given[:57] + '...'}",
                why,
                f"{name!r} must be of type {spec.type}.",
            )
        found[name] = value
    return found


def _fault(spec: FieldSpec, value: Any) -> str | None:
    match spec.type:
        case "text":
            why = _text_fault(value)
            if why is None and spec.allowed is not None and value not in spec.allowed:
                return f"it must be one of {', '.join(spec.allowed)}"
            return why
        case "integer":
            return None if isinstance(value, int) and not isinstance(value, bool) else "it is not an integer"
        case "number":
            return None if isinstance(value, int | float) and not isinstance(value, bool) else "it is not a number"
        case "boolean":
            return None if isinstance(value, bool) else "it is neither true nor false"
        case "text-list":
            return _list_fault(value)
        case "choices":
            return _choices_fault(value)


def _text_fault(value: Any) -> str | None:
    if not isinstance(value, str):
        return "it is not a text"
    if not value.strip():
        return "it is empty"
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return "it holds half of a surrogate pair, which is no character"
    return None


def _list_fault(value: Any) -> str | None:
    if not isinstance(value, list):
        return "it is not a list"
    for position, item in enumerate(value):
        if why := _text_fault(item):
            return f"item {position} is no usable text: {why}"
    return None


def _choices_fault(value: Any) -> str | None:
    if not isinstance(value, Mapping) or not {"text", "label"} <= set(value):
        return "it is not a mapping with 'text' and 'label'"
    if why := _list_fault(value["text"]) or _list_fault(value["label"]):
        return why
    if len(value["text"]) != len(value["label"]):
        return f"it has {len(value['text'])} texts for {len(value['label'])} labels"
    if len(set(value["label"])) < len(value["label"]):
        return "a label is given twice"
    return None
