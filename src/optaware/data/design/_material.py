"""What the writer of a template is shown of a paper."""

from __future__ import annotations

import re

from optaware.records import PaperCard, PaperItem

__all__ = ["around", "cut", "paper_items", "parts", "plain_text"]

_LEFT_OUT = frozenset({"references", "related"})


def plain_text(text: str) -> str:
    """Paragraphs and points of lists without marks of Markdown, one a line."""
    found = []
    for paragraph in re.split(r"\n\s*\n|\n(?=[ \t]*(?:[-*•]|\d{1,2}[.)])[ \t])", text):
        line = re.sub(r"^\s*(?:#{1,6}|>)\s*", "", " ".join(paragraph.split()))
        line = re.sub(r"\*\*|__|</?u>|<sup>.*?</sup>", "", line).strip()
        if line:
            found.append(line)
    return "\n".join(found)


def cut(text: str, limit: int) -> tuple[str, bool]:
    """At most `limit` characters of a text, cut after a paragraph or sentence; and whether something was cut."""
    if len(text) <= limit:
        return text, False
    head = text[:limit]
    # "2. " begins a point of a list; it does not end a sentence.
    ends = [found.end() for found in re.finditer(r"[^\s\d][.!?](?=\s)", head)]
    at = max(head.rfind("\n"), ends[-1] if ends else -1)
    return head[: at if at > limit // 2 else limit].rstrip(), True


def parts(card: PaperCard, limit: int) -> list[str]:
    """The paper by section, in pieces of at most `limit` characters; without references and related work.

    Sections are read in the order of what they tell of the method: method, introduction and abstract first,
    experiments and appendix last, so that a bound on the number of parts costs the least.
    """
    rank = {"method": 0, "abstract": 1, "introduction": 1, "background": 2, "front": 3, "ablation": 3, "experiments": 4}
    chosen = [section for section in card.sections if section.role not in _LEFT_OUT]
    texts = [card.section_text(section) for section in sorted(chosen, key=lambda s: rank.get(s.role, 5))]
    pieces: list[str] = []
    current = ""
    for text in texts or [card.text]:
        for line in plain_text(text).split("\n"):
            for start in range(0, len(line), limit):
                piece = line[start : start + limit]
                if current and len(current) + len(piece) + 1 > limit:
                    pieces.append(current)
                    current = ""
                current = f"{current}\n{piece}" if current else piece
    return [*pieces, current] if current.strip() else pieces


def paper_items(card: PaperCard, limit: int) -> list[PaperItem]:
    """Figures, tables and algorithms, those that the introduction holds or names first."""
    items = [*card.algorithms, *card.figures, *card.tables]
    intro = card.introduction

    def place(item: PaperItem) -> int:
        if intro is None:
            return 0
        inside = intro.place.start <= item.place.start < intro.place.end
        return 0 if inside or (item.label is not None and item.label in intro.text) else 1

    return sorted(items, key=place)[:limit]


def around(card: PaperCard, item: PaperItem, limit: int = 900) -> str:
    """What the text says of an item: what follows its caption within the section, and sentences that name it."""
    text = card.text
    end = next((s.place.end for s in card.sections if s.place.start <= item.place.start < s.place.end), len(text))
    after = text[item.place.end : min(end, item.place.end + limit)]
    found = [plain_text(after).strip()]
    if item.label:
        for sentence in re.findall(rf"[^.\n]*\b{re.escape(item.label)}\b[^.\n]*\.", text):
            if sentence.strip() not in item.text and len(" ".join(found)) < limit:
                found.append(" ".join(sentence.split()))
    return cut("\n".join(part for part in found if part), limit)[0]
