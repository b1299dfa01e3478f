from __future__ import annotations

import re
from pathlib import Path

from optaware.paper._items import Span, ablations, captions, hyperparameters
from optaware.paper._load import PaperText, load_text
from optaware.paper._sections import Heading, find_headings, roles
from optaware.records import PaperCard, PaperHyperparameter, PaperItem, PaperSection, Place
from optaware.records.paper import SectionRole

__all__ = ["read_paper"]

_UNREAD: frozenset[SectionRole] = frozenset(["references"])
_MAX_ITEMS = 300


def read_paper(path: Path) -> PaperCard:
    """Read a paper into a card: by rules only, so the same file always gives the same card.

    Every item is a verbatim quote of the card's text with its place. Captions are found by their labels, settings by
    the names of common hyper-parameters with numbers behind them, ablations by what papers call them; what a paper
    words in another way is missed, and a note says what was not found at all.

    Args:
        path: A PDF with text, Markdown, plain text, a LaTeX file, or the folder of a LaTeX tree.

    Raises:
        InputError: The file is missing, encrypted, damaged, a scan, or no text.
    """
    read = load_text(path)
    headings = find_headings(read.text, read.form)
    own = _title_heading(headings, read)
    body = [heading for heading in headings if heading is not own]
    kinds = roles(body)
    bare = PaperCard(source=str(path), sha256=read.sha256, form=read.form, text=read.text, page_starts=read.page_starts)
    ends = [*(heading.start for heading in body[1:]), len(read.text)][: len(body)]
    sections = tuple(
        PaperSection(
            title=heading.title,
            number=heading.number,
            level=heading.level,
            role=role,
            place=bare.place(heading.start, end).model_copy(update={"section": heading.title}),
        )
        for heading, role, end in zip(body, kinds, ends, strict=True)
    )
    return _Gatherer(bare.model_copy(update={"sections": sections}), body).card(_title(read, headings, own), read.notes)


class _Gatherer:
    """Collects the items of one paper."""

    def __init__(self, card: PaperCard, headings: list[Heading]) -> None:
        self.whole = card
        self.headings = headings

    def card(self, title: Span | None, notes: tuple[str, ...]) -> PaperCard:
        """The card with all its items; what was looked for and not found is noted."""
        text, form = self.whole.text, self.whole.form
        breaks = [heading.start for heading in self.headings]
        listed: dict[str, list[PaperItem]] = {"figure": [], "table": [], "algorithm": []}
        for kind, label, span in captions(text, form, breaks):
            listed[kind].append(PaperItem(kind=kind, label=label, text=text[slice(*span)], place=self.place(span)))
        found = {
            "title": self.item("title", title),
            "abstract": self.item("abstract", self.body("abstract")),
            "introduction": self.item("introduction", self.body("introduction")),
            "figures": tuple(listed["figure"]),
            "tables": tuple(listed["table"]),
            "algorithms": tuple(listed["algorithm"]),
            "hyperparameters": self.settings(),
            "ablations": self.taken_away(),
        }
        missing = [name for name in ("title", "abstract", "introduction") if found[name] is None]
        if not self.whole.method_sections:
            missing.append("method sections")
        told = (*notes, *((f"not found: {', '.join(missing)}",) if missing else ()))
        return PaperCard.model_validate({**dict(self.whole), **found, "notes": told})

    def place(self, span: Span) -> Place:
        return self.whole.place(*span)

    def item(self, kind: str, span: Span | None) -> PaperItem | None:
        if span is None or not self.whole.text[slice(*span)].strip():
            return None
        return PaperItem.model_validate(
            {"kind": kind, "text": self.whole.text[slice(*span)], "place": self.place(span)}
        )

    def body(self, role: SectionRole) -> Span | None:
        """The text under a section's title, up to the next section of another role."""
        for at, section in enumerate(self.whole.sections):
            if section.role == role:
                end = section.place.end
                for other in self.whole.sections[at + 1 :]:
                    if other.role != role or other.level <= section.level:
                        break
                    end = other.place.end
                text = self.whole.text[self.headings[at].end : end]
                text = re.split(r"\\end\{abstract\}", text)[0]
                start = self.headings[at].end + len(text) - len(text.lstrip())
                return (start, start + len(text.strip())) if text.strip() else None
        return None

    def read_spans(self) -> list[Span]:
        """What is searched for settings and ablations: everything before the references and after them."""
        if not self.whole.sections:
            return [(0, len(self.whole.text))]
        front = (0, self.whole.sections[0].place.start)
        bodies = zip(self.whole.sections, self.headings, strict=True)
        return [front, *((head.end, section.place.end) for section, head in bodies if section.role not in _UNREAD)]

    def settings(self) -> tuple[PaperHyperparameter, ...]:
        text, seen, found = self.whole.text, set(), []
        for start, end in self.read_spans():
            for name, values, span in hyperparameters(text, start, end):
                if (name, values) not in seen:
                    seen.add((name, values))
                    found.append(
                        PaperHyperparameter(label=name, values=values, text=text[slice(*span)], place=self.place(span))
                    )
        return tuple(found[:_MAX_ITEMS])

    def taken_away(self) -> tuple[PaperItem, ...]:
        text = self.whole.text
        spans = [span for start, end in self.read_spans() for span in ablations(text, start, end)]
        return tuple(
            PaperItem(kind="ablation", text=text[slice(*span)], place=self.place(span)) for span in spans[:_MAX_ITEMS]
        )


def _title_heading(headings: list[Heading], read: PaperText) -> Heading | None:
    """The heading that is the paper's title: the first of a Markdown file, when it is no section's name."""
    if read.form != "markdown" or not headings or headings[0].number is not None:
        return None
    first = roles(headings[:1])[0]
    return headings[0] if first == "front" and headings[0].level == 1 else None


def _title(read: PaperText, headings: list[Heading], own: Heading | None) -> Span | None:
    text = read.text
    if own is not None:
        start = text.find(own.title, own.start, own.end)
        return (start, start + len(own.title)) if start >= 0 else (own.start, own.end)
    if read.form == "latex":
        from optaware.paper._latex import braced

        found = re.search(r"\\title\s*(?:\[[^\]]*\])?\{", text)
        close = braced(text, found.end() - 1) if found else -1
        return (found.end(), close) if found and close > found.end() else None
    stop = headings[0].start if headings else min(len(text), 2000)
    lines = list(re.finditer(r"[^\n]*\S[^\n]*", text[:stop]))
    if not lines:
        return None
    first, last = lines[0], lines[0]
    # A title of two lines: the first does not end it and the second is no line of names.
    if len(lines) > 2 and lines[0][0].rstrip()[-1:] in ":-–," and not re.search(r"[0-9@∗*†]", lines[1][0]):
        last = lines[1]
    start = first.start() + len(first[0]) - len(first[0].lstrip())
    return start, last.start() + len(last[0].rstrip())
