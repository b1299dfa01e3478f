"""A template as sections of lines, which the phases edit; the text of the Jinja file is the truth."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from optaware._io import text_sha256
from optaware.data._words import content_words
from optaware.errors import InputError

__all__ = [
    "ALWAYS",
    "DATA",
    "FAULTS",
    "NEEDS",
    "OPTIMIZER",
    "PAPER",
    "Document",
    "Section",
    "covered",
    "escape",
    "plain",
]

DATA, PAPER, OPTIMIZER = "The data", "From the paper", "The optimizer"
NEEDS, FAULTS, ALWAYS = "What the optimizer needs", "Faults to avoid", "Always"
_ORDER = (DATA, PAPER, OPTIMIZER, NEEDS, FAULTS, ALWAYS)

_SPLIT = re.compile(
    r'\A(?:---\n(?P<meta>.*?)^---\n)?\{%-? *if part == "system" *-?%\}\n(?P<system>.*?)'
    r"\{%- *else *-?%\}\n(?P<row>.*?)\{%- *endif *-?%\}\s*\Z",
    re.DOTALL | re.MULTILINE,
)
_META = re.compile(r"^(?P<name>\w+): (?P<value>.*)$", re.MULTILINE)
_OPEN = re.compile(r"\{(?=[{%#])")
ROW = (
    "{% for name, value in given %}{{ name }}: {{ value }}\n{% endfor %}"
    "Original {{ noun }}: {{ span }}\nRewritten {{ noun }}:\n"
)


def escape(text: str) -> str:
    """`text` for a Jinja file: what it says, whatever braces it holds, on one line."""
    return _OPEN.sub('{{ "{" }}', " ".join(text.split()))


def plain(line: str, wording: Mapping[str, str]) -> str:
    """A line of a template as a reader sees it: the names of the wording filled in, other expressions left out."""
    text = line.replace('{{ "{" }}', "{")
    for name, value in wording.items():
        text = text.replace(f"{{{{ {name} }}}}", value)
        text = text.replace(f"{{{{ {name}|capitalize }}}}", value[:1].upper() + value[1:])
    return text


@dataclass(frozen=True)
class Section:
    """A heading and the lines under it; points keep their "- "."""

    title: str
    lines: tuple[str, ...]

    @property
    def points(self) -> list[str]:
        """The lines that are points, without their mark."""
        return [line[2:] for line in self.lines if line.startswith("- ")]


@dataclass(frozen=True)
class Document:
    """A rewriter's template: an opening line, sections, what stands in a row's turn, and front matter.

    All lines are Jinja source, so expressions that a person put into the file survive.
    """

    opening: tuple[str, ...]
    sections: tuple[Section, ...]
    row: str = ROW
    meta: tuple[tuple[str, str], ...] = ()

    @classmethod
    def parse(cls, text: str, where: str) -> Document:
        """Read a template file of this form.

        Raises:
            InputError: It has not the two parts `system` and `row`.
        """
        found = _SPLIT.match(text.replace("\r\n", "\n"))
        if found is None:
            raise InputError.of(
                "design-form",
                where,
                'it is not of the form {%- if part == "system" -%} … {%- else -%} … {%- endif -%}',
                "Use a template that `data template build` made, or one written like the built-in `oat`.",
            )
        opening, *rest = re.split(r"^## +(.+)$", found["system"], flags=re.MULTILINE)
        pairs = zip(rest[::2], rest[1::2], strict=True)
        sections = tuple(Section(title.strip(), _lines(body)) for title, body in pairs)
        meta = tuple((m["name"], m["value"]) for m in _META.finditer(found["meta"] or ""))
        return cls(_lines(opening), sections, found["row"], meta)

    @property
    def text(self) -> str:
        """The Jinja file."""
        front = "".join(f"{name}: {value}\n" for name, value in self.meta)
        blocks = ["\n".join(self.opening)]
        blocks += [f"## {section.title}\n" + "\n".join(section.lines) for section in self.sections if section.lines]
        head = f"---\n{front}---\n" if front else ""
        row = self.row if self.row.endswith("\n") else self.row + "\n"
        return (
            head + '{%- if part == "system" -%}\n' + "\n\n".join(blocks) + "\n{%- else -%}\n" + row + "{%- endif -%}\n"
        )

    @property
    def id(self) -> str:
        """Content hash, as `load_template` gives it."""
        return text_sha256(self.text)

    def lines(self, *titles: str) -> tuple[str, ...]:
        """The lines of the named sections; of all when none is named."""
        chosen = [section for section in self.sections if not titles or section.title in titles]
        return tuple(line for section in chosen for line in section.lines)

    def points(self, *titles: str) -> list[str]:
        """The points of the named sections, without their marks."""
        return [line[2:] for line in self.lines(*titles) if line.startswith("- ")]

    def with_lines(self, title: str, lines: Iterable[str]) -> Document:
        """The document with these lines in place of a section's own; a new section goes to its place in the order."""
        new = Section(title, tuple(lines))
        if any(section.title == title for section in self.sections):
            kept = [new if section.title == title else section for section in self.sections]
        else:
            place = _ORDER.index(title) if title in _ORDER else len(_ORDER)
            kept = list(self.sections)
            later = (n for n, s in enumerate(kept) if s.title in _ORDER and _ORDER.index(s.title) > place)
            kept.insert(next(later, len(kept)), new)
        return replace(self, sections=tuple(section for section in kept if section.lines))

    def adding(self, title: str, points: Iterable[str]) -> Document:
        """The document with more points in a section."""
        return self.with_lines(title, (*self.lines(title), *(f"- {point}" for point in points)))

    def with_meta(self, **values: str | int) -> Document:
        """The document with these values in its front matter."""
        merged = dict(self.meta) | {name: str(value) for name, value in values.items()}
        return replace(self, meta=tuple(merged.items()))

    def lost(self, before: Document) -> list[str]:
        """Lines of an earlier document that this one does not have, white space aside."""
        own = {" ".join(line.split()) for line in (*self.opening, *self.lines(), *self.row.splitlines())}
        old = (*before.opening, *before.lines(), *before.row.splitlines())
        return [line for line in old if line.strip() and " ".join(line.split()) not in own]


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def covered(point: str, lines: Iterable[str]) -> bool:
    """Whether one of the lines says about the same: three fifths of the point's content words, or of the line's own."""
    own = content_words(point)
    if not own:
        return True
    for line in lines:
        other = content_words(line)
        if len(own & other) >= 0.6 * len(own) or (len(other) >= 4 and len(own & other) >= 0.75 * len(other)):
            return True
    return False
