from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Literal

from optaware.errors import InputError
from optaware.plan._limits import check_commas, check_document, check_size, check_values
from optaware.plan._mojibake import mend, suspicious
from optaware.plan._notes import Notes
from optaware.plan._page import PageText, is_page, read_page
from optaware.plan._rows import read_rows
from optaware.plan._text import MAX_BYTES, decode
from optaware.records import EncodingDamage, PageFacts, PlanDocument, PlanItem, Repair, parse_record

__all__ = ["parse_plan", "read_plan"]

_BOX_OR_TITLE = re.compile(r"^(?:<div [^\n]*trajectory-box|# lm-planner/)", re.M)
_TAG = re.compile(r"<(/?)(discussion|predictions)>", re.I)
_OWN = re.compile(r'\{\s*"format"\s*:\s*"optaware-plan/')
_FENCES = re.compile(r"\s*[`~]{3,}[^\n`{\[]{0,40}\n(.*?)\n[ \t]*[`~]{3,}\s*", re.S)


def read_plan(path: Path) -> PlanDocument:
    """Read a plan from a file (see `parse_plan`).

    Raises:
        InputError: No such file, or it cannot be read as a plan at all.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise InputError.of("file-missing", str(path), "there is no such file", "Check the path.") from error
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise InputError.of("file-unreadable", str(path), why, "Give a readable file.") from error
    return parse_plan(data, str(path))


def parse_plan(data: bytes | str, where: str = "<text>") -> PlanDocument:
    """Read an ablation plan, whatever shape it has.

    A rendered page or the same as Markdown; JSONL; a JSON array; a model's raw reply with `<discussion>` and
    `<predictions>` blocks; or a document that `plan parse --json` wrote. UTF-8 that had been read in another encoding
    is put back first. An entry that is not understood keeps its place with the reasons, and loses no other entry.
    Work and memory grow linearly with the input.

    Args:
        data: At most 10 MiB.
        where: What the text is called in errors.

    Raises:
        InputError: Nothing in it can be read as a plan, or it is too large.
    """
    raw = data.encode("utf-8", "replace") if isinstance(data, str) else data
    text, repairs = decode(raw, where)
    if (document := _own_document(text, where)) is not None:
        return document
    mended, damage = mend(text)
    repairs.extend(_encoding_repairs(text, mended, damage))
    notes = Notes()
    notes.repairs.extend(repairs)
    if piece := suspicious(mended):
        why = "it looks like UTF-8 read in another encoding, but does not decode back"
        notes.warn("encoding-doubtful", piece, why, "Compare with the original text.")
    read_from, facts, trace, items = _read(mended, where, notes)
    if not items:
        raise InputError.of(
            "plan-without-entries",
            f"a {read_from} text without entries",
            "it holds no ablation",
            "Look whether the text was cut off, or its <predictions> block is empty.",
            where,
        )
    check_values(items, where)
    return PlanDocument(
        read_from=read_from,
        page=facts,
        encoding=damage,
        trace=trace,
        items=tuple(items),
        diagnostics=tuple(notes.diagnostics),
        repairs=tuple(notes.repairs),
    )


ReadFrom = Literal["page", "markdown", "jsonl", "json", "reply"]


def _read(text: str, where: str, notes: Notes) -> tuple[ReadFrom, PageFacts, str | None, list[PlanItem]]:
    if text.lstrip()[0] in "{[":
        kind, rows = read_rows(text, where, notes)
        return kind, PageFacts(), None, rows
    if _BOX_OR_TITLE.search(text):
        shape, page = read_page(text, where, notes)
        return shape, page.facts, page.trace, page.items
    if _TAG.search(text):
        trace, items = _read_reply(text, where, notes)
        return "reply", PageFacts(), trace, items
    if is_page(text):
        shape, page = read_page(text, where, notes)
        return shape, page.facts, page.trace, page.items
    if "{" not in text:
        raise InputError.of(
            "plan-not-recognised",
            "a text without entries",
            "it is no rendered page, JSONL, JSON array or model reply",
            "Give a plan in one of these forms; docs/plans.md shows them.",
            where,
        )
    notes.repaired("tags-missing", "no <predictions> block", "the JSON objects of the text")
    return "reply", PageFacts(), None, read_rows(_unfenced(text, notes), where, notes)[1]


def _read_reply(text: str, where: str, notes: Notes) -> tuple[str | None, list[PlanItem]]:
    """A model's raw reply: the last `<predictions>` block, and the `<discussion>` block as the trace."""
    blocks = _blocks(text, notes)
    trace = None
    for name, start, end in blocks:
        if name == "discussion":
            trace = text[start:end].strip("\n") if text[start:end].strip() else None
    if trace is None:
        notes.warn("trace-missing", "no <discussion> block", "the reply gives no reasons", "Nothing to do.")
    plans = [(start, end) for name, start, end in blocks if name == "predictions"]
    if len(plans) > 1:
        notes.repaired("several-plans", f"{len(plans)} <predictions> blocks", "the last one")
    if plans:
        start, end = plans[-1]
    else:
        start, end = max((end for _, _, end in blocks), default=0), len(text)
        closing = _TAG.match(text, start)
        start = closing.end() if closing else start
        notes.repaired("tags-missing", "no <predictions> block", "the text after the discussion")
    body = text[start:end]
    line = text.count("\n", 0, start) + 1
    check_size(0, len(body), where)
    if body.strip() and body.lstrip()[0] not in "{[`~" and is_page(body):
        page: PageText = read_page(body, where, notes)[1]
        return trace, page.items
    return trace, read_rows(_unfenced(body, notes), where, notes, line)[1] if body.strip() else []


def _blocks(text: str, notes: Notes) -> list[tuple[str, int, int]]:
    """Name, start and end of each block; a block that is not closed ends at the next tag or at the end."""
    blocks: list[tuple[str, int, int]] = []
    name, start = "", 0
    for tag in _TAG.finditer(text):
        closing, found = bool(tag[1]), tag[2].lower()
        if name and (not closing or found == name):
            if not closing:
                notes.repaired("tag-not-closed", f"<{name}>", f"closed before <{found}>")
            blocks.append((name, start, tag.start()))
            name = ""
        if not closing:
            name, start = found, tag.end()
        if len(blocks) > 1000:
            break
    if name:
        notes.repaired("tag-not-closed", f"<{name}>", "closed at the end")
        blocks.append((name, start, len(text)))
    return blocks


def _unfenced(text: str, notes: Notes) -> str:
    """The inside of a code fence that holds the whole text; its line count is kept."""
    match = _FENCES.fullmatch(text)
    if match is None or "```" in match[1]:
        return text
    notes.repaired("code-fence", text[: match.start(1)].strip(), "")
    return "\n" * text.count("\n", 0, match.start(1)) + match[1]


def _encoding_repairs(before: str, after: str, damage: tuple[EncodingDamage, ...]) -> list[Repair]:
    if not damage:
        return []
    samples = [next((run[0] for run in re.finditer(r"[^\x00-\x7f]{1,40}", text)), "") for text in (before, after)]
    return [
        Repair(code="encoding", before=f"{samples[0]} (UTF-8 read as {found.read_as})", after=samples[1])
        for found in damage
    ]


def _own_document(text: str, where: str) -> PlanDocument | None:
    if not _OWN.match(text.lstrip()):
        return None
    check_commas(text, where)
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError.of(
            "malformed", where, f"not valid JSON ({error})", "Write the document again with `plan parse --json`.", where
        ) from error
    check_document(value, where)
    document = parse_record(PlanDocument, value, where)
    check_values(document.items, where)
    return document
