"""Where two nested mappings differ, such as the specs of two runs or two studies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["differences", "flat"]


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested mappings as `outer.inner` keys; lists stay whole."""
    if not isinstance(value, Mapping):
        return {prefix: value}
    found: dict[str, Any] = {}
    for key, item in value.items():
        found |= flat(item, f"{prefix}.{key}" if prefix else str(key))
    return found


def differences(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Fields in which two nested mappings differ, in the order of the first; None where one has no such field."""
    a, b = flat(left), flat(right)
    return [(key, a.get(key), b.get(key)) for key in {**a, **b} if a.get(key) != b.get(key)]
