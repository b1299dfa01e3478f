from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from optaware.records.paper import SectionRole

__all__ = ["Heading", "find_headings", "roles"]

_MARKDOWN = re.compile(r"^(?P<marks>#{1,6})[ \t]+(?P<title>[^\n]*?)[ \t]*#*$", re.M)
_LATEX = re.compile(r"\\(?P<kind>part|chapter|section|subsection|subsubsection|paragraph)\*?\s*(?:\[[^\]]*\])?\{")
_LATEX_ABSTRACT = re.compile(r"\\begin\{abstract\}")
_LATEX_END = re.compile(r"\\begin\{thebibliography\}|\\bibliography\{|\\printbibliography")
_APPENDIX = re.compile(r"\\appendix\b|\\begin\{appendices\}")
_NUMBER = re.compile(r"(?P<number>[1-9][0-9]?(?:\.[1-9][0-9]?){0,3}|[A-Z](?:\.[1-9][0-9]?){0,3})\.?\s+(?P<rest>\S.*)")
_KNOWN = re.compile(
    r"abstract|introduction|related works?|background|preliminar\w+|methods?|methodology|approach|experiments?|"
    r"experimental (?:setup|results)|evaluation|results(?: and discussion)?|discussion|ablation stud(?:y|ies)|"
    r"conclusions?|limitations?|references|bibliography|acknowledge?ments?|appendix|appendices",
    re.I,
)
_LEVELS = {"part": 1, "chapter": 1, "section": 1, "subsection": 2, "subsubsection": 3, "paragraph": 4}
_ROLES: tuple[tuple[SectionRole, str], ...] = (
    ("abstract", r"abstract"),
    ("introduction", r"introduction"),
    ("references", r"references|bibliography"),
    ("appendix", r"appendi(?:x|ces)|supplement\w*"),
    ("related", r"related works?|prior work"),
    ("conclusion", r"conclusions?|discussions?|limitations?|broader impacts?|acknowledge?ments?|future work"),
    ("ablation", r"ablations?|ablative|sensitivity"),
    ("experiments", r"experiments?|experimental|evaluations?|results?|empirical"),
    ("background", r"background|preliminar\w+|problem (?:statement|setup|setting|formulation)|notations?"),
    ("method", r"methods?|methodology|approach|algorithms?|framework|workflow|architecture|our|proposed"),
)


@dataclass(frozen=True)
class Heading:
    """A heading: where its line starts and ends, its title without number and marks, its depth."""

    start: int
    end: int
    title: str
    number: str | None
    level: int


def find_headings(text: str, form: Literal["pdf", "markdown", "latex", "text"]) -> list[Heading]:
    """The headings of a paper in order.

    Markdown by `#`, LaTeX by its commands; in a PDF or plain text, lines that are a known name ("Abstract") or a
    number that continues the numbering and a short title.
    """
    if form == "markdown":
        return [_markdown(found) for found in _MARKDOWN.finditer(text) if found["title"].strip("*_ ")]
    return _latex(text) if form == "latex" else _plain(text)


def _markdown(found: re.Match[str]) -> Heading:
    bare = re.sub(r"[*_`\\]|<[^>]+>", "", found["title"]).strip().strip("#").strip()
    number, title = _numbered(bare)
    level = number.count(".") + 1 if number else len(found["marks"])
    return Heading(found.start(), found.end(), title or bare or found["title"], number, level)


def _numbered(line: str) -> tuple[str | None, str]:
    found = _NUMBER.fullmatch(line)
    if found is None or (found["number"].isalpha() and not found["rest"][:1].isupper()):
        return None, line
    return found["number"], found["rest"].strip()


def _latex(text: str) -> list[Heading]:
    from optaware.paper._latex import braced

    headings = []
    for found in _LATEX.finditer(text):
        close = braced(text, found.end() - 1)
        if close > 0:
            title = re.sub(
                r"\s+", " ", re.sub(r"\\label\{[^}]*\}|\\[a-zA-Z]+\*?|[{}$~]", " ", text[found.end() : close])
            )
            headings.append(Heading(found.start(), close + 1, title.strip(), None, _LEVELS[found["kind"]]))
    for pattern, title in ((_LATEX_ABSTRACT, "Abstract"), (_LATEX_END, "References"), (_APPENDIX, "Appendix")):
        if found_one := pattern.search(text):
            end = text.find("}", found_one.start()) + 1 if title != "Appendix" else found_one.end()
            headings.append(Heading(found_one.start(), end, title, None, 1))
    return sorted(headings, key=lambda heading: heading.start)


def _plain(text: str) -> list[Heading]:
    headings: list[Heading] = []
    last: list[int | str] = []
    at = 0
    for line in text.split("\n"):
        bare = line.strip()
        start, at = at + line.find(bare) if bare else at, at + len(line) + 1
        if not 3 <= len(bare) <= 100 or bare[-1] in ".,;:?-" or len(bare.split()) > 14:
            continue
        number, title = _numbered(bare)
        known = _KNOWN.fullmatch(bare) is not None
        if number is not None and title[:1].isupper() and _continues(last, number) and _titular(title):
            last = _key(number)
            headings.append(Heading(start, start + len(bare), title, number, number.count(".") + 1))
        elif known:
            headings.append(Heading(start, start + len(bare), bare, None, 1))
    return headings


def _titular(title: str) -> bool:
    words = title.split()
    letters = sum(char.isalpha() or char.isspace() for char in title)
    return letters >= 0.8 * len(title) and (
        len(words) < 3 or sum(word[0].isupper() for word in words) >= len(words) / 3
    )


def _key(number: str) -> list[int | str]:
    return [int(piece) if piece.isdigit() else piece for piece in number.split(".")]


def _continues(last: list[int | str], number: str) -> bool:
    """Whether a number comes next: 1, 1.1, 1.2, 2, …, A, A.1, B; a section may be missed, not turned back."""
    key = _key(number)
    if not last:
        return key[0] in (1, "A")
    one, other = last[0], key[0]
    if isinstance(one, int) and isinstance(other, int):
        return key > last and other - one <= 2 and (len(key) > 1 or other > one)
    if isinstance(one, str) and isinstance(other, str):
        return [str(piece) for piece in key] > [str(piece) for piece in last] and ord(other) - ord(one) <= 2
    return isinstance(one, int) and other == "A" and one >= 3


def roles(headings: list[Heading]) -> list[SectionRole]:
    """What each section is for, by its title, else by its place.

    Subsections follow their section; what stands between introduction and experiments is method; what follows the
    references or an appendix mark is appendix.
    """
    found: list[SectionRole] = []
    stage: SectionRole = "front"
    above: list[tuple[int, SectionRole]] = []
    for heading in headings:
        named = next((role for role, words in _ROLES if re.search(rf"\b(?:{words})\b", heading.title, re.I)), None)
        above = [(level, role) for level, role in above if level < heading.level]
        if stage in ("references", "appendix"):
            role: SectionRole = "references" if named == "references" else "appendix"
        elif named == "abstract" and stage != "front":
            role = stage
        elif heading.number and heading.number[0].isalpha() and stage in ("conclusion", "experiments", "related"):
            role = "appendix"
        elif above and named != "ablation":
            role = above[-1][1]
        elif named not in (None, "method"):
            assert named is not None
            role = named
        elif stage in ("front", "abstract"):
            role = named or "front"
        else:
            role = "method" if stage in ("introduction", "background", "method", "related") else named or stage
        found.append(role)
        if role != "front" or stage == "front":
            stage = stage if role in ("related", "ablation") and stage in ("introduction", "method") else role
        above.append((heading.level, role))
    return found
