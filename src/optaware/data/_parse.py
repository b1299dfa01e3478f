"""From raw replies to spans and verdicts: by fixed rules, and never by a guess."""

from __future__ import annotations

import re
from typing import Literal

from optaware.records import ParseFailure

__all__ = ["ABSTAINED", "parse_rewrite", "parse_verdict"]

_REASONING = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
_FENCE = re.compile(r"```[^\n`]*\n(.*?)\n?```", re.DOTALL)
_LABEL = re.compile(
    r"^\W{0,3}(?:the\s+|a\s+|my\s+)?(?:re-?(?:written|worded|phrased|write|word|phrase|vised)|paraphrased?|new\s+version|output)"
    r"\b[^:\n]{0,40}:\W{0,3}(?=\s|$|[\"“'])",
    re.IGNORECASE,
)
_INTRO = re.compile(
    r"^(?:sure|certainly|of course|okay|ok|here)\b[^\n]{0,100}:$|^(?:sure|certainly|of course|okay|ok)\s*[.!]$",
    re.IGNORECASE,
)
_REMARK = re.compile(
    r"^\W{0,3}(?:explanation|note|rationale|reasoning|comment|changes?(?:\s+made)?)\b\s*[:\-–(]"
    r"|^\W{0,3}(?:this|the)\s+(?:rewrite|rewritten|rewording|paraphrase|revised|rephrased)\b"
    r"|^\W{0,3}i(?:'ve| have)?\s+(?:kept|changed|replaced|rewrote|rephrased|removed|made)\b",
    re.IGNORECASE,
)
_REFUSAL = re.compile(
    r"^(?:i'?m\s+sorry|i\s+am\s+sorry|sorry|i\s+apologi[sz]e|unfortunately)\b.{0,40}?\b(?:can(?:'t|not|\s+not)|unable|won'?t)\b"
    r"|^as\s+an\s+ai\b"
    r"|^i\s+(?:can(?:'t|not|\s+not)|am\s+unable\s+to|won'?t|will\s+not)\s+"
    r"(?:assist|help|rewrite|rephrase|paraphrase|provide|comply|fulfil+|do\s+that|generate|create|continue)\b",
    re.IGNORECASE,
)
_PAIRS = (('"', '"'), ("“", "”"), ("«", "»"), ("**", "**"), ("`", "`"), ("'", "'"), ("‘", "’"))

ABSTAINED = "abstained"
_ABSTENTIONS = frozenset(
    {
        "unsure",
        "not sure",
        "i am not sure",
        "i'm not sure",
        "uncertain",
        "unclear",
        "cannot tell",
        "can't tell",
        "i cannot tell",
        "i don't know",
        "i do not know",
        "unknown",
        "cannot decide",
        "cannot determine",
        "neither",
        "n/a",
    }
)


def parse_rewrite(reply: str, original: str, heading: str = "") -> str | ParseFailure:
    """Take the rewritten span out of a raw reply.

    The rules, in order: reasoning in `<think>` tags goes; a refusal is a failure; the content of the only code fence
    is taken; what stands before the last label ("Rewritten premise:", "Here is …:") goes, the heading that the prompt
    used ("Premise:") too; lines that repeat the original go when others remain; from a remark on ("Note:", "This
    rewrite …") the rest goes; quotes, asterisks and backticks around the whole go. When the original is one line, one
    line must be left.

    Args:
        reply: The reply as it came.
        original: The span that was to be rewritten; whatever it has itself (a label, quotes, lines) is left alone.
        heading: What stood before the span in the prompt.

    Returns:
        The span, empty when the reply is empty; or a `ParseFailure` that says why there is none to take.
    """
    text = _REASONING.sub("", reply).strip()
    before = original.strip()
    if _REFUSAL.search(_straight(text)) and not _REFUSAL.search(_straight(before)):
        return ParseFailure(raw=reply, why="refusal")
    if "```" in text and "```" not in before:
        fences = _FENCE.findall(text)
        if len(fences) != 1:
            return ParseFailure(raw=reply, why="code fences without one clear content")
        text = fences[0]
    lines = _content([line.strip() for line in text.splitlines() if line.strip()], before, heading)
    if len(lines) > 1 and len(before.splitlines()) <= 1:
        return ParseFailure(raw=reply, why="several lines")
    return _unwrap("\n".join(" ".join(line.split()) for line in lines), before)


def _content(lines: list[str], before: str, heading: str) -> list[str]:
    start = max((n for n, line in enumerate(lines) if _is_label(line, before)), default=-1)
    if start >= 0:
        rest = _LABEL.sub("", lines[start]).strip(" *_") if _LABEL.match(lines[start]) else ""
        lines = [rest, *lines[start + 1 :]] if rest else lines[start + 1 :]
    end = next((n for n, line in enumerate(lines) if n and _REMARK.match(line) and line not in before), len(lines))
    lines = [_without_heading(line, before, heading) for line in lines[:end]]
    others = [line for line in lines if _loose(line) != _loose(before)]
    return others or lines[:1]


def _is_label(line: str, before: str) -> bool:
    found = _LABEL.match(line) or _INTRO.match(line)
    return found is not None and found.group(0).strip() not in before


def _without_heading(line: str, before: str, heading: str) -> str:
    if not heading or re.match(rf"\W{{0,3}}{re.escape(heading)}\s*:", before, re.IGNORECASE):
        return line
    return re.sub(rf"^\W{{0,3}}{re.escape(heading)}\s*:\W{{0,3}}(?=\s|[\"“'])", "", line, flags=re.IGNORECASE).strip()


def _unwrap(text: str, before: str) -> str:
    while True:
        for left, right in _PAIRS:
            inner = text[len(left) : len(text) - len(right)]
            if (
                len(text) >= len(left) + len(right)
                and text.startswith(left)
                and text.endswith(right)
                and left not in inner
                and right not in inner
                and not (before.startswith(left) and before.endswith(right))
            ):
                text = inner.strip()
                break
        else:
            return text


def _loose(text: str) -> str:
    return " ".join(text.split()).strip("\"“”'*` ").casefold()


def _straight(text: str) -> str:
    return text.replace("’", "'").replace("‘", "'")


def parse_verdict(reply: str) -> Literal["same", "not the same"] | ParseFailure:
    """Read a judge's verdict: exactly `same` or `not the same`, whatever the case and the punctuation around it.

    Anything else is a `ParseFailure`; `why` is `"abstained"` when the judge said in so many words that it cannot tell.
    """
    text = _straight(_REASONING.sub("", reply))
    text = re.sub(r"^[\W_]+|[\W_]+$", "", " ".join(text.split()).casefold())
    if text == "same":
        return "same"
    if text == "not the same":
        return "not the same"
    if not text:
        return ParseFailure(raw=reply, why="empty")
    return ParseFailure(raw=reply, why=ABSTAINED if text in _ABSTENTIONS else "neither `same` nor `not the same`")
