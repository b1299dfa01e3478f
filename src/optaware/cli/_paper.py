from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from optaware.cli._options import AsJson, print_json, print_table

if TYPE_CHECKING:
    from optaware.records import PaperCard, PaperItem

__all__ = ["app"]

app = App(name="paper", help="Papers: read them into a card whose every item quotes its place.")


@app.command
def read(
    file: Path,
    /,
    *,
    out: Annotated[Path | None, Parameter(name=("-o", "--out"), help="Write the card as JSON to this file.")] = None,
    json: AsJson = False,
) -> int:
    """Read a paper: title, abstract, introduction, method, captions, settings and ablations, each with its place.

    Parameters
    ----------
    file
        PDF with text, Markdown, plain text, LaTeX file, or the folder of a LaTeX tree.
    """
    from optaware.paper import read_paper

    card = read_paper(file)
    if out is not None:
        from optaware._io import write_json

        write_json(out, card.to_json())
    if json:
        print_json(card.to_json())
    else:
        _print(card)
    for note in card.notes:
        print(f"note: {note}", file=sys.stderr)
    return 0


def _print(card: PaperCard) -> None:
    rows = []
    for item in card.items:
        name = item.label or item.kind
        rows.append([item.kind, name if name != item.kind else "", _at(item), _short(item.text)])
    print_table(["what", "name", "place", "quote"], rows)
    roles = ", ".join(f"{section.title} ({section.role})" for section in card.sections if section.level == 1)
    pages = f"{len(card.page_starts)} pages, " if card.page_starts else ""
    print(f"{card.form}, {pages}{len(card.text)} characters, {len(card.sections)} sections: {roles}")


def _at(item: PaperItem) -> str:
    place = item.place
    where = f"page {place.page}" if place.page else f"line {place.line}"
    return f"{where}, {_short(place.section or 'front', 30)}, {place.start}-{place.end}"


def _short(text: str, limit: int = 70) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else f"{flat[: limit - 3]}..."
