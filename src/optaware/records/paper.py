"""What a paper says, with the place of everything that is quoted."""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import Literal, Self

from pydantic import model_validator

from optaware.records._base import Record

__all__ = ["PaperCard", "PaperHyperparameter", "PaperItem", "PaperSection", "Place", "SectionRole"]

SectionRole = Literal[
    "front",
    "abstract",
    "introduction",
    "background",
    "method",
    "experiments",
    "ablation",
    "related",
    "conclusion",
    "references",
    "appendix",
]


class Place(Record):
    """Where something stands: characters `start` to `end` (exclusive) of the card's text, and how a reader finds it.

    Attributes:
        start: Offset of the first character.
        end: Offset after the last one.
        section: Title of the section that it begins in; None before the first.
        page: Page of a PDF, from 1.
        line: Line of the text, from 1; None for a PDF.
    """

    start: int
    end: int
    section: str | None = None
    page: int | None = None
    line: int | None = None


class PaperItem(Record):
    """A verbatim quote and its place.

    Attributes:
        kind: What it is.
        label: How the paper calls it ("Figure 2"), where it has a name.
        text: The quote, line breaks included.
        place: Where it stands.
    """

    kind: Literal["title", "abstract", "introduction", "figure", "table", "algorithm", "hyperparameter", "ablation"]
    label: str | None = None
    text: str
    place: Place


class PaperHyperparameter(PaperItem):
    """A sentence or cell that gives a setting; `label` is its name, `values` the numbers and sets as written."""

    kind: Literal["hyperparameter"] = "hyperparameter"
    values: tuple[str, ...] = ()


class PaperSection(Record):
    """A section: its title as written, without number and marks, its depth from 1, and its text from title to end.

    `place` spans the section with its title, and without its subsections' text when they are listed themselves.
    """

    title: str
    number: str | None = None
    level: int
    role: SectionRole
    place: Place


class PaperCard(Record):
    """A paper as text, and what a planner or a prompt builder needs of it; every item is a quote that was checked.

    Attributes:
        source: Path that it was read from.
        sha256: Hash of that file; of the main file for a LaTeX tree.
        form: What the file is.
        text: The whole text that places refer to.
        page_starts: For a PDF, the offset at which each page begins.
        title: As written.
        abstract: Its body.
        introduction: Its body.
        sections: All sections in order.
        figures: Captions.
        tables: Captions.
        algorithms: Captions, with the listing where the file has it.
        hyperparameters: Settings that the text gives.
        ablations: Where the paper itself takes parts away or varies them.
        notes: What a reader of the card should know, for instance pages without text.
    """

    version: Literal[1] = 1
    source: str
    sha256: str
    form: Literal["pdf", "markdown", "latex", "text"]
    text: str
    page_starts: tuple[int, ...] = ()
    title: PaperItem | None = None
    abstract: PaperItem | None = None
    introduction: PaperItem | None = None
    sections: tuple[PaperSection, ...] = ()
    figures: tuple[PaperItem, ...] = ()
    tables: tuple[PaperItem, ...] = ()
    algorithms: tuple[PaperItem, ...] = ()
    hyperparameters: tuple[PaperHyperparameter, ...] = ()
    ablations: tuple[PaperItem, ...] = ()
    notes: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _quotes_are_verbatim(self) -> Self:
        faults = [
            f"{item.label or item.kind}: characters {item.place.start} to {item.place.end} are not its text"
            for item in self.items
            if self.text[item.place.start : item.place.end] != item.text or not item.text
        ]
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def items(self) -> tuple[PaperItem, ...]:
        """Everything that the card quotes."""
        single = [item for item in (self.title, self.abstract, self.introduction) if item is not None]
        return (*single, *self.figures, *self.tables, *self.algorithms, *self.hyperparameters, *self.ablations)

    @property
    def method_sections(self) -> tuple[PaperSection, ...]:
        """The sections that describe the method."""
        return tuple(section for section in self.sections if section.role == "method")

    def section_text(self, section: PaperSection) -> str:
        """The text of a section, with its title."""
        return self.text[section.place.start : section.place.end]

    def place(self, start: int, end: int) -> Place:
        """Section, page or line of a span of the text."""
        at = bisect_right([section.place.start for section in self.sections], start) - 1
        section = self.sections[at].title if at >= 0 else None
        if self.page_starts:
            page = bisect_right(self.page_starts, start)
            return Place(start=start, end=end, section=section, page=page)
        return Place(start=start, end=end, section=section, line=self.text.count("\n", 0, start) + 1)

    def find(self, quote: str) -> Place | None:
        """Where a quote stands, white space and words broken at line ends aside; None when the text has no such words.

        Anything else must agree to the letter: what a model claims to have read is there, or it is not.
        """
        words = quote.split()
        if not words:
            return None
        pattern = r"\s+".join(
            r"(?:-\n)?".join(map(re.escape, word)) if len(word) > 4 else re.escape(word) for word in words
        )
        found = re.search(pattern, self.text)
        return self.place(found.start(), found.end()) if found else None
