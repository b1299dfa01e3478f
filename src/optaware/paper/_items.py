from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

from optaware.paper._latex import braced

__all__ = ["Span", "ablations", "captions", "hyperparameters", "sentences"]

Span = tuple[int, int]
Kind = Literal["figure", "table", "algorithm"]
_CAPTION = re.compile(
    r"^[ \t>*_#]*(?P<label>(?P<kind>Figure|Fig\.|Table|Algorithm)[ \t]*(?P<number>[A-Z]?\.?[0-9]{1,3}))"
    r"[*_ \t]*[:.|]?(?=[*_ \t]*\S)",
    re.M,
)
_ENVIRONMENT = re.compile(r"\\begin\{(figure|table|algorithm|wrapfigure|wraptable)\*?\}")
_SENTENCE = re.compile(
    r"\S(?:[^.?!\n]|[.?!](?!\s)|\n(?!\s*\n)|(?<=\b[A-Za-z])\.|(?<=e\.g)\.|(?<=i\.e)\.|(?<=et al)\.|(?<=Fig)\.|"
    r"(?<=Eq)\.)*[.?!]?"
)
_NAMES = (
    r"learning rates?|batch size|perturbation (?:scale|magnitude|size)|step size|momentum|weight decay|"
    r"(?:lora |adapter )?rank|lora alpha|alpha|dropout|temperature|warm-?up(?: steps)?|epochs?|training steps|"
    r"(?:gradient )?clipping|hidden (?:size|dimension)|"
    r"number of [a-z]+(?: (?!from|to|is|was|between|of|in)[a-z]+)?|random seeds?|optimizer|"
    r"max(?:imum)?[ -](?:sequence )?length|prompt length|epsilon|\$?\\?(?:var)?epsilon\$?|ε|ϵ|top-[kp]|beam size"
)
_VALUE = (
    r"(?:\\?\{(?:[^{}\n]|\{[^{}\n]*\}){1,160}\\?\}|\$[^$\n]{1,120}\$|"
    r"[-+]?[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+|\s*[×x]\s*10\s*\^?\s*[-−]?[0-9]+|[kKM%])?)"
)
_SETTING = re.compile(
    rf"\b(?P<name>{_NAMES})\b(?P<between>[^.;:\n]{{0,40}}?[\s=:(]|\s*[:=|]\s*)"
    rf"(?P<values>{_VALUE}(?:\s*(?:,|and|or|to|/|\|)\s*(?:and\s+|or\s+)?{_VALUE})*)",
    re.I,
)
_ABLATES = re.compile(
    r"\bablat\w+|\b(?:sensitivity (?:of|analysis)|hyper-?parameter sensitivity)\b|"
    r"\bwe (?:also )?(?:remove|vary|drop|disable|replace|swap)\b|"
    r"\b(?:effect|impact|influence|role) of (?:the |removing |varying |different )|\bwithout (?:the|our|any)\b.{0,60}"
    r"\b(?:drops?|decreases?|degrades?|falls?|accuracy|performance)\b|\bwhen we vary\b",
    re.I,
)


def sentences(text: str, start: int, end: int) -> Iterator[Span]:
    """Spans of the sentences between two offsets; a blank line ends one."""
    for paragraph in re.finditer(r"\S(?:.|\n(?!\s*\n))*", text[start:end]):
        at = start + paragraph.start()
        for found in _SENTENCE.finditer(paragraph[0]):
            stop = found.start() + len(found[0].rstrip())
            if stop > found.start():
                yield at + found.start(), at + stop


def captions(text: str, form: str, breaks: list[int]) -> Iterator[tuple[Kind, str, Span]]:
    """Captions of figures, tables and algorithms: kind, label, span.

    Args:
        text: The paper's text.
        form: Its form.
        breaks: Offsets where a caption ends at the latest (headings).
    """
    if form == "latex":
        yield from _latex_captions(text)
        return
    starts = [found for found in _CAPTION.finditer(text) if _is_caption(text, found)]
    stops = sorted([*breaks, *(found.start() for found in starts), len(text)])
    seen: set[str] = set()
    for found in starts:
        kind: Kind = "table" if found["kind"] == "Table" else "algorithm" if found["kind"] == "Algorithm" else "figure"
        label = f"{kind.capitalize()} {found['number']}"
        if label in seen:
            continue
        seen.add(label)
        limit = next(stop for stop in stops if stop > found.start())
        yield kind, label, (found.start("label"), _caption_end(text, found.end(), limit, form, kind))


def _is_caption(text: str, found: re.Match[str]) -> bool:
    """A caption goes on after a colon, bar or full stop; a sentence that begins with "Figure 3" does not."""
    return (
        text[found.start() : found.end()].rstrip("*_ \t")[-1:] in ":.|" and text[found.end() : found.end() + 1] != ")"
    )


def _caption_end(text: str, at: int, limit: int, form: str, kind: Kind) -> int:
    blank = re.compile(r"\n[ \t]*\n").search(text, at, limit)
    stop = blank.start() if blank else limit
    if kind != "algorithm" and form in ("pdf", "text") and not blank:
        for lines, line_end in enumerate(re.finditer(r"\n", text[at:stop]), start=1):
            if text[at : at + line_end.start()].rstrip().endswith(".") or lines == 8:
                stop = at + line_end.start()
                break
    stop = min(stop, at + (6000 if kind == "algorithm" else 2000))
    return at + len(text[at:stop].rstrip())


def _latex_captions(text: str) -> Iterator[tuple[Kind, str, Span]]:
    counts = {"figure": 0, "table": 0, "algorithm": 0}
    for found in _ENVIRONMENT.finditer(text):
        kind: Kind = "table" if "table" in found[1] else "algorithm" if found[1] == "algorithm" else "figure"
        end = text.find(f"\\end{{{found[1]}", found.end())
        end = len(text) if end < 0 else end
        at = re.compile(r"\\caption(?:\[[^\]]*\])?\{").search(text, found.end(), end)
        if at is None:
            continue
        counts[kind] += 1
        close = braced(text, at.end() - 1, 10_000)
        if close > at.end():
            whole = text.find("}", end) + 1
            span = (found.start(), whole) if kind == "algorithm" and whole else (at.end(), close)
            yield kind, f"{kind.capitalize()} {counts[kind]}", span


def hyperparameters(text: str, start: int, end: int) -> Iterator[tuple[str, tuple[str, ...], Span]]:
    """Settings that a stretch of text gives: name, values as written, span of the words from name to last value."""
    for first, last in sentences(text, start, end):
        for found in _SETTING.finditer(text, first, last):
            values = tuple(re.findall(_VALUE, found["values"]))
            if any(map(str.isdigit, "".join(values))):
                yield " ".join(found["name"].lower().split()), values, (found.start(), found.end("values"))


def ablations(text: str, start: int, end: int) -> Iterator[Span]:
    """Sentences in which a paper says that it takes parts away or varies them."""
    for first, last in sentences(text, start, end):
        if last - first >= 30 and _ABLATES.search(text, first, last):
            yield first, last
