from __future__ import annotations

import re

from optaware.records import PaperCard

__all__ = ["chunks", "overview", "readable"]

_LEFT_OUT = frozenset(["references", "appendix", "related"])


def readable(card: PaperCard) -> str:
    """What a planner reads: all sections but related work, references and appendix; all where none is told."""
    kept = [section for section in card.sections if section.role not in _LEFT_OUT]
    if not any(section.role == "method" for section in kept) and len(kept) < 2:
        return card.text
    front = card.text[: card.sections[0].place.start]
    return "\n".join(text.strip() for text in (front, *map(card.section_text, kept)) if text.strip())


def chunks(card: PaperCard, limit: int) -> list[str]:
    """The readable text in pieces of at most `limit` characters, cut between paragraphs where that is possible."""
    pieces: list[str] = []
    current = ""
    for paragraph in re.split(r"\n\s*\n", readable(card)):
        for start in range(0, max(1, len(paragraph)), limit):
            part = paragraph[start : start + limit]
            if current and len(current) + len(part) + 2 > limit:
                pieces.append(current)
                current = ""
            current = f"{current}\n\n{part}" if current else part
    return [*pieces, current] if current.strip() else pieces


def overview(card: PaperCard, limit: int) -> str:
    """What stands for a long paper when its parts were read before: abstract, captions, its own ablations."""
    items = [card.abstract, *card.figures, *card.tables, *card.algorithms, *card.ablations]
    text = "\n".join(" ".join(item.text.split()) for item in items if item is not None)
    return text[:limit] or readable(card)[:limit]
