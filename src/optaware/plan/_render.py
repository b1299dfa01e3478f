from __future__ import annotations

import json
import re
from typing import Literal

from optaware._io import dumps
from optaware.errors import InputError
from optaware.plan._notes import Notes
from optaware.plan._page import PALETTES, read_page
from optaware.plan._page_item import is_structure, read_item
from optaware.records import AblationEntry, PageFacts, PlanDocument, PlanItem, PlanValue

__all__ = ["entry_json", "render_plan"]

_OWN: dict[Literal["page", "md"], str] = {"page": "page", "md": "markdown"}
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_STYLE = """<style>
.trajectory-box strong {
  color: #1a1a1a !important;
}
.trajectory-box h3 {
  color: #1a1a1a !important;
}
</style>
"""
_BOX = (
    '<div style="background: linear-gradient(135deg, {0} 0%, {1} 100%); border-left: 5px solid {2}; padding: 20px; '
    'margin: 20px 0; border-radius: 8px; box-shadow: 0 2px 8px rgba(0,0,0,0.1); color: #1a1a1a;" '
    'class="trajectory-box">\n'
    '<h2 style="color: {3}; margin-top: 0; margin-bottom: 15px; font-size: 1.3em;">{4}</h2>\n\n'
)
_TRACE_COLOURS = ("#e3f2fd", "#bbdefb", "#2196f3", "#1976d2")
# The published pages have these signs in their headings; nothing is ever recognised by them.
_TRACE_HEADING = "\N{BRAIN} Reasoning Trace"
_PLAN_HEADING = "\N{CLIPBOARD} Ablation Plan"


def render_plan(document: PlanDocument, to: Literal["page", "jsonl", "md"]) -> str:
    """Write a plan as a page, as JSONL or as Markdown.

    A document read from a page (or Markdown) gives that text again, byte for byte, except where entries were mended
    or edited: those, and everything when the page's own facts were edited, are written in the normal layout. Entries
    that were not understood keep their text on the page; JSONL has only those that were.

    Returns:
        The text; a page has no final newline, as published ones have none.
    """
    if to == "jsonl":
        return "".join(entry_json(entry) + "\n" for entry in document.plan.entries)
    pieces = [_item(item, _OWN[to] == document.read_from) for item in document.items]
    head, middle, tail = _frame(document, to)
    body = ""
    for piece in pieces:
        body += ("" if not body or body.endswith("\n") else "\n\n") + piece
    if tail and body and not body.endswith("\n"):
        body += "\n"
    text = f"{head}{document.trace or ''}{middle}{body}{tail}"
    return text.rstrip("\n") + "\n" if to == "md" and document.page.tail is None else text


def entry_json(entry: AblationEntry) -> str:
    """One line of JSON with exactly name, ablated_part, action, replacement and metrics; numbers as written."""
    replacement: str
    if entry.replacement is None:
        replacement = "null"
    elif isinstance(entry.replacement, dict):
        inner = ", ".join(f"{dumps(key)}: {_value_json(value)}" for key, value in entry.replacement.items())
        replacement = f"{{{inner}}}"
    else:
        replacement = f"[{', '.join(_value_json(value) for value in entry.replacement)}]"
    fields = ", ".join(f'"{name}": {dumps(getattr(entry, name))}' for name in ("name", "ablated_part", "action"))
    return f'{{{fields}, "replacement": {replacement}, "metrics": {dumps(list(entry.metrics))}}}'


def _value_json(value: PlanValue) -> str:
    if value.kind in ("integer", "number") and _JSON_NUMBER.fullmatch(value.text):
        return value.text
    return json.dumps(value.text if value.kind in ("percent", "pair", "text") else value.value, ensure_ascii=False)


def _item(item: PlanItem, verbatim: bool) -> str:
    """The item's own text where it still says the same, else its entry in the normal layout."""
    if item.entry is None:
        return item.source or "" if verbatim else ""
    if verbatim and item.source and not item.repairs:
        rows = [line + "\n" for line in item.source.split("\n")]
        if read_item(rows, None).entry == item.entry:
            return item.source
    return _entry_text(item.entry)


def _entry_text(entry: AblationEntry) -> str:
    lines = [f"### {entry.name}", f"- **Ablated Part**: {entry.ablated_part}", f"- **Action**: {entry.action}"]
    if isinstance(entry.replacement, dict):
        inner = ", ".join(f"{key!r}: {_literal(value)}" for key, value in entry.replacement.items())
        lines.append(f"- **Replacement**: {{{inner}}}")
    elif entry.replacement is not None:
        lines.append("- **Replacement**: ")
        lines.extend(f"  - {_lines(value.text)}" for value in entry.replacement)
    lines.append(f"- **Metrics**: {', '.join(entry.metrics)}")
    return "\n".join(lines) + "\n\n"


def _literal(value: PlanValue) -> str:
    if value.kind in ("integer", "number", "list", "dict"):
        return value.text
    return repr(value.value if value.kind in ("none", "bool") else value.text)


def _lines(text: str) -> str:
    """A value of several lines; joined by spaces when a line of it would be read as something else."""
    first, *others = text.split("\n")
    return " ".join([first, *others]) if any(is_structure(line) for line in others) else text


def _frame(document: PlanDocument, to: Literal["page", "md"]) -> tuple[str, str, str]:
    """What stands before the trace, between trace and entries, and after them."""
    page = document.page
    head, middle, tail = page.head, page.middle, page.tail
    if head is not None and middle is not None and tail is not None:
        same_shape = document.read_from == _OWN[to]
        if same_shape and _says(head, middle, tail, document):
            return head, middle, tail
    return _page_frame(page) if to == "page" else _markdown_frame(document)


def _says(head: str, middle: str, tail: str, document: PlanDocument) -> bool:
    """Whether the page's own words around trace and entries still say what the facts say."""
    probe = f"{head}{document.trace or ''}{middle}### x\n- **Ablated Part**: x\n\n{tail}"
    try:
        _, read = read_page(probe, "", Notes())
    except InputError:
        return False
    return (read.facts, read.trace) == (document.page, document.trace)


def _page_frame(page: PageFacts) -> tuple[str, str, str]:
    title = f"\n# lm-planner/{page.model}/{page.paper}\n" if page.model and page.paper else ""
    head = f"{_STYLE}{title}\n{_BOX.format(*_TRACE_COLOURS, page.trace_heading or _TRACE_HEADING)}"
    colours = PALETTES[page.task or "author"]
    return head, f"\n</div>\n\n{_BOX.format(*colours, page.plan_heading or _PLAN_HEADING)}", "</div>"


def _markdown_frame(document: PlanDocument) -> tuple[str, str, str]:
    page = document.page
    title = f"# lm-planner/{page.model}/{page.paper}\n\n" if page.model and page.paper else ""
    task = f" ({page.task} task)" if page.task else ""
    if document.trace is None:
        return f"{title}## Ablation Plan{task}\n\n", "", ""
    return f"{title}## Reasoning Trace\n\n", f"\n\n## Ablation Plan{task}\n\n", ""
