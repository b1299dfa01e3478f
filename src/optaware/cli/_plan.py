from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from optaware.cli._options import AsJson, print_json

if TYPE_CHECKING:
    from optaware.records import PlanDocument

__all__ = ["app"]

PlanFile = Annotated[Path, Parameter(allow_leading_hyphen=True)]

app = App(name="plan", help="Ablation plans: read them in any shape, write, check and score them.")


@app.command
def parse(file: PlanFile, /, *, json: AsJson = False) -> int:
    """Read a plan and print its entries as JSONL, one a line; what was not understood goes to standard error.

    Exit code 0: every entry was understood; 1: some were not, the others are printed; 2: no plan at all.

    Parameters
    ----------
    file
        Rendered page (also mis-decoded), Markdown, JSONL, JSON array, raw model reply, or `-` for standard input.
    json
        Print the whole document instead: trace, page facts, and per entry its diagnostics and repairs.
    """
    from optaware.plan import render_plan

    document = _read(file)
    if json:
        print_json(document.to_json())
    else:
        _write(render_plan(document, "jsonl"))
    _tell(document, file)
    return 0 if document.understood else 1


@app.command
def render(
    document: PlanFile,
    /,
    *,
    to: Annotated[Literal["page", "jsonl", "md"], Parameter(help="page, jsonl or md.")] = "page",
    out: Annotated[Path | None, Parameter(help="File to write; default: standard output.")] = None,
    model: Annotated[str | None, Parameter(help="Planner named in the title.")] = None,
    paper: Annotated[str | None, Parameter(help="Paper named in the title.")] = None,
    task: Annotated[Literal["author", "reviewer"] | None, Parameter(help="Whose box colours.")] = None,
) -> int:
    """Write a plan as a page, JSONL or Markdown. What was read from a page comes out byte for byte, mended.

    Parameters
    ----------
    document
        What `plan parse --json` wrote, or a plan in any shape that it reads; `-` for standard input.
    """
    from optaware._io import write_text
    from optaware.plan import render_plan

    read = _read(document)
    told = {"model": model, "paper": paper, "task": task}
    facts = {name: value for name, value in told.items() if value is not None}
    if facts:
        read = read.model_copy(update={"page": read.page.model_copy(update=facts)})
    text = render_plan(read, to)
    if out is None:
        _write(text)
    else:
        write_text(out, text)
    _tell(read, document)
    return 0 if read.understood else 1


def _read(file: Path) -> PlanDocument:
    from optaware.plan import MAX_BYTES, parse_plan, read_plan

    if str(file) == "-":
        return parse_plan(sys.stdin.buffer.read(MAX_BYTES + 1), "<stdin>")
    return read_plan(file)


def _write(text: str) -> None:
    """Print text as UTF-8 bytes, without a line end of its own: a page has none."""
    sys.stdout.flush()
    sys.stdout.buffer.write(text.encode("utf-8"))
    sys.stdout.buffer.flush()


def _tell(document: PlanDocument, file: Path) -> None:
    for found in document.all_diagnostics:
        place = f"{file}:{found.line}" if found.line else str(file)
        print(f"{found.level}: {place}: {found.given}: {found.why}. {found.next} [{found.code}]", file=sys.stderr)
