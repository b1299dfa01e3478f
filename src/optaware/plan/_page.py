from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from optaware.plan._limits import check_size
from optaware.plan._notes import Notes
from optaware.plan._page_item import is_entry_heading, read_item, starts_entry
from optaware.records import PageFacts, PlanItem

__all__ = ["PALETTES", "PageText", "is_page", "read_page"]

PALETTES: dict[Literal["author", "reviewer"], tuple[str, str, str, str]] = {
    "author": ("#f3e5f5", "#e1bee7", "#9c27b0", "#7b1fa2"),
    "reviewer": ("#e8f5e8", "#c8e6c9", "#4caf50", "#2e7d32"),
}
_TITLE = re.compile(r"#[ \t]+lm-planner/(.*)/([^/\n]+)")
_H2 = re.compile(r"<h2[^>\n]*>([^\n]*)</h2>[ \t]*")
_MARKS = re.compile(r"^(?:<div [^\n]*trajectory-box|# lm-planner/| ?[-*+][ \t]+\*\*Ablated[ _]Part:?\*\*)", re.M | re.I)


@dataclass
class PageText:
    """A page taken apart: `head + trace + middle + sources + tail` is its text again."""

    facts: PageFacts
    trace: str | None
    items: list[PlanItem]


def is_page(text: str) -> bool:
    """Whether a text has the boxes, the title or an entry of a rendered page or Markdown plan."""
    return _MARKS.search(text) is not None


def read_page(text: str, where: str, notes: Notes) -> tuple[Literal["page", "markdown"], PageText]:
    """Read a rendered page, or the same as plain Markdown (`## Ablation Plan`, `### name`, `- **Action**: …`).

    Raises:
        InputError: It is too large to be one plan.
    """
    rows = _rows(text)
    boxes = [at for at, row in enumerate(rows) if row.startswith("<div") and "trajectory-box" in row]
    if boxes:
        return "page", _read_boxes(rows, boxes, where, notes)
    return "markdown", _read_markdown(rows, where, notes)


def _rows(text: str) -> list[str]:
    """Lines with their LF; other characters that Python counts as line ends are ordinary text here."""
    lines = text.split("\n")
    return [line + "\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


def _read_boxes(rows: list[str], boxes: list[int], where: str, notes: Notes) -> PageText:
    plan = boxes[-1]
    end = _last(rows, plan, len(rows), "</div>")
    if end is None:
        end = len(rows)
        notes.warn("box-not-closed", "the plan's box", "its </div> is missing", "The text may be cut off.", plan + 1)
    plan_heading, first = _after_heading(rows, plan, end)
    trace_heading: str | None = None
    trace_from = trace_to = first_of_middle = 0
    if len(boxes) > 1:
        trace_heading, trace_from = _after_heading(rows, boxes[0], plan)
        closed = _last(rows, boxes[0], plan, "</div>")
        trace_to = plan if closed is None else max(closed, trace_from)
        first_of_middle = trace_to
    else:
        trace_from = trace_to = first_of_middle = plan
        notes.warn("trace-missing", "no box with a reasoning trace", "a page has two boxes", "Nothing to do.")
    task = _task(rows[plan])
    if task is None:
        notes.warn("box-colours", rows[plan].strip(), "its colours tell no task", "Authors' boxes have #f3e5f5.")
    model, paper = _title(rows[: boxes[0]])
    return _assemble(
        rows,
        PageFacts(model=model, paper=paper, task=task, trace_heading=trace_heading, plan_heading=plan_heading),
        (trace_from, trace_to, first_of_middle, first, end),
        where,
        notes,
    )


def _read_markdown(rows: list[str], where: str, notes: Notes) -> PageText:
    plan = next((at for at in range(len(rows) - 1, -1, -1) if rows[at].startswith("## Ablation Plan")), None)
    trace = next((at for at in range(plan or 0) if rows[at].startswith("## Reasoning Trace")), None)
    if plan is None:
        part = next((at for at, row in enumerate(rows) if starts_entry(row.rstrip("\n"))), len(rows))
        before = (at for at in range(part - 1, -1, -1) if is_entry_heading(rows[at].rstrip("\n")))
        first = next(before, part)
        trace_from = trace_to = first
    else:
        first = plan + 1
        trace_from = trace_to = plan
        if trace is not None:
            trace_to = plan - 1 if not rows[plan - 1].strip() else plan
            trace_from = trace + 1 if rows[trace + 1].strip() else trace + 2
            trace_to = max(trace_to, trace_from)
    headings = tuple(rows[at][3:].strip() if at is not None else None for at in (trace, plan))
    model, paper = _title(rows[:first])
    task = None
    for name in PALETTES:
        if plan is not None and f"({name} task)" in rows[plan]:
            task = name
    return _assemble(
        rows,
        PageFacts(model=model, paper=paper, task=task, trace_heading=headings[0], plan_heading=headings[1]),
        (trace_from, trace_to, trace_to, first, len(rows)),
        where,
        notes,
    )


def _assemble(
    rows: list[str], facts: PageFacts, places: tuple[int, int, int, int, int], where: str, notes: Notes
) -> PageText:
    trace_from, trace_to, middle_from, first, end = places
    check_size(0, sum(map(len, rows[first:end])), where)
    starts = _starts(rows, first, end)
    check_size(len(starts), 0, where)
    entries_from = starts[0] if starts else end
    for at in range(first, entries_from):
        if rows[at].strip():
            why = "it stands before the first entry"
            notes.error("line-not-understood", rows[at].strip(), why, "Write `### name` first.", at + 1)
    raw = "".join(rows[trace_from:trace_to])
    trace = raw[:-1] if raw.endswith("\n") else raw
    facts = facts.model_copy(
        update={
            "head": "".join(rows[:trace_from]),
            "middle": raw[len(trace) :] + "".join(rows[middle_from:entries_from]),
            "tail": "".join(rows[end:]),
        }
    )
    items = [read_item(rows[a:b], a + 1) for a, b in zip(starts, [*starts[1:], end], strict=True)] if starts else []
    return PageText(facts=facts, trace=trace or None, items=items)


def _starts(rows: list[str], first: int, end: int) -> list[int]:
    """Where entries begin: at headings, and at a second `Ablated Part` without a heading of its own."""
    starts: list[int] = []
    has_part = True
    for at in range(first, end):
        line = rows[at].rstrip("\n")
        if is_entry_heading(line):
            starts.append(at)
            has_part = False
        elif starts_entry(line):
            if has_part:
                starts.append(at)
            has_part = True
    return starts


def _last(rows: list[str], start: int, end: int, word: str) -> int | None:
    return next((at for at in range(end - 1, start, -1) if rows[at].strip() == word), None)


def _after_heading(rows: list[str], box: int, end: int) -> tuple[str | None, int]:
    """The text of a box's heading, and the row after it and its blank line."""
    at = box + 1
    while at < end and not rows[at].strip():
        at += 1
    match = _H2.fullmatch(rows[at].rstrip("\n")) if at < end else None
    if match is None:
        return None, box + 1
    return match[1], min(at + 2, end) if at + 1 < end and not rows[at + 1].strip() else at + 1


def _title(rows: list[str]) -> tuple[str | None, str | None]:
    for row in rows:
        if match := _TITLE.match(row):
            return match[1], match[2].rstrip()
    return None, None


def _task(box: str) -> Literal["author", "reviewer"] | None:
    lowered = box.lower()
    return next((task for task, colours in PALETTES.items() if colours[0] in lowered), None)
