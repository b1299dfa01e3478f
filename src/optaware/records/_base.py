from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from optaware._io import hide_secrets
from optaware.errors import InputError, Problem

__all__ = ["Record", "parse_record"]

R = TypeVar("R", bound="Record")


class Record(BaseModel):
    """Base of everything that is written to disk or passed between stages: immutable, and strict about keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", ser_json_inf_nan="null", validate_default=True, hide_input_in_errors=True
    )

    def to_json(self) -> dict[str, Any]:
        """The record as plain JSON values."""
        return self.model_dump(mode="json")


def parse_record(cls: type[R], data: Any, where: str) -> R:
    """Validate `data` as a record of `cls`; every fault is reported at once, each with its field.

    Args:
        cls: The record class.
        data: Plain JSON or YAML values.
        where: The file (and line) that the data came from, for the errors.

    Raises:
        InputError: One problem per field that is wrong.
    """
    try:
        return cls.model_validate(data)
    except ValidationError as error:
        raise InputError(*(_problem(item, cls, where) for item in error.errors(include_url=False))) from error


def _problem(item: Any, cls: type[Record], where: str) -> Problem:
    said = hide_secrets(item["msg"].removeprefix("Value error, "))
    path = ".".join(str(part) for part in item["loc"]) or "the whole value"
    if (
        not item["loc"] and item["type"] == "value_error"
    ):  # no single field is wrong, but they do not go together; all of them would say nothing here
        return Problem(f"field-{item['type'].replace('_', '-')}", "the fields together", said, "Correct them.", where)
    given = hide_secrets(repr(item.get("input")))  # a key that was put into the wrong field is not repeated
    given = given if len(given) <= 80 else given[:77] + "..."
    known = ", ".join(cls.model_fields)
    advice = {
        "missing": f"Add the field {path}.",
        "extra_forbidden": f"Remove it, or choose one of: {known}." if "." not in path else "Remove or rename it.",
    }.get(item["type"], "Correct the value.")
    given = path if item["type"] == "missing" else f"{path} = {given}"
    return Problem(f"field-{item['type'].replace('_', '-')}", given, said, advice, where)
