from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from optaware.errors import InputError
from optaware.records import PlanItem

__all__ = ["check_commas", "check_document", "check_size", "check_values"]

MAX_ENTRIES = 1000
MAX_VALUES = 10_000
MAX_CHARS = 500_000
MAX_NODES = 1_000_000


def check_size(entries: int, characters: int, where: str) -> None:
    """Refuse what is too large to be one plan.

    Raises:
        InputError: More entries than a plan may have, or more characters than its entries may have.
    """
    _check(entries, MAX_ENTRIES, "entries", where)
    _check(characters, MAX_CHARS, "characters of entries", where)


def check_values(items: Iterable[PlanItem], where: str) -> None:
    """Refuse more alternatives than a plan may have.

    Raises:
        InputError: There are more.
    """
    _check(sum(len(item.entry.values) for item in items if item.entry), MAX_VALUES, "replacements", where)


def check_commas(text: str, where: str) -> None:
    """Refuse JSON that surely has too many parts before spending time on parsing it; a long trace has some commas too.

    Raises:
        InputError: It has.
    """
    _check(text.count(","), 2 * MAX_NODES, "commas", where)


def check_document(value: dict[str, Any], where: str) -> None:
    """Refuse a document with more parts than any plan has, before it is validated part by part.

    Raises:
        InputError: It has more.
    """
    items = value.get("items")
    for item in items if isinstance(items, list) else ():
        entry = item.get("entry") if isinstance(item, dict) else None
        values = entry.get("replacement") if isinstance(entry, dict) else None
        _check(len(values) if isinstance(values, dict | list) else 0, MAX_VALUES, "replacements", where)
    check_size(len(items) if isinstance(items, list) else 0, 0, where)
    waiting: list[Any] = [value]
    nodes = 0
    while waiting:
        item = waiting.pop()
        inner = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
        nodes += len(inner)
        _check(nodes, MAX_NODES, "JSON values", where)
        waiting.extend(part for part in inner if isinstance(part, dict | list))


def _check(given: int, limit: int, unit: str, where: str) -> None:
    if given > limit:
        why = f"one plan may have {limit} {unit}"
        raise InputError.of("plan-too-large", f"{given} {unit}", why, "Give one plan at a time.", where)
