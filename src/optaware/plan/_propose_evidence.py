"""The quotes that a planner gives: taken out of its reply, looked up in the paper, listed under the trace."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from optaware.records import AblationEntry, Place, Record

__all__ = ["Evidence", "with_evidence", "without_evidence"]

_STRING = r'"(?:[^"\\\n]|\\.)*"'
_EVIDENCE = re.compile(rf',?\s*"evidence"\s*:\s*(?P<text>{_STRING}|null|\[(?:[^\]"\n]|{_STRING})*\])')
_NAME = re.compile(rf'"name"\s*:\s*({_STRING})')


class Evidence(Record):
    """What a planner says it read: the quote, and its place in the paper; None when the paper has no such words."""

    entry: str
    quote: str
    place: Place | None


def without_evidence(text: str) -> tuple[str, dict[str, list[str]]]:
    """A reply without the entries' `evidence`, and the quotes by the name that stands before them."""
    quotes: dict[str, list[str]] = {}
    for found in _EVIDENCE.finditer(text):
        names = list(_NAME.finditer(text, 0, found.start()))
        try:
            said: Any = json.loads(found["text"])
            name = json.loads(names[-1][1]) if names else None
        except (ValueError, RecursionError):
            continue
        texts = [said] if isinstance(said, str) else said if isinstance(said, list) else []
        if isinstance(name, str):
            quotes.setdefault(" ".join(name.split()), []).extend(t for t in texts if isinstance(t, str) and t.strip())
    return _EVIDENCE.sub("", text), quotes


def with_evidence(trace: str, entries: Sequence[AblationEntry], evidence: Sequence[Evidence]) -> str:
    """The trace, and under it what each entry rests on; a quote that the paper does not have is marked."""
    lines = [trace.strip("\n"), "", "**Evidence**"] if trace.strip() else ["**Evidence**"]
    for rank, entry in enumerate(entries, start=1):
        own = [found for found in evidence if found.entry == entry.name]
        lines += [f"{rank}. {' '.join(found.quote.split())!r} ({_where(found.place)})" for found in own]
        if not own:
            lines.append(f"{rank}. no quote given")
    return "\n".join(lines)


def _where(place: Place | None) -> str:
    if place is None:
        return "NOT FOUND in the paper"
    at = f"page {place.page}" if place.page else f"line {place.line}"
    return f"{place.section}, {at}" if place.section else at
