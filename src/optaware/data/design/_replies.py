"""From a reply about the template to lines that may go into it, by fixed rules; what is dropped gets a reason."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from optaware.data._words import content_words, numbers, words
from optaware.data.design._document import covered

__all__ = [
    "Lines",
    "about_learning",
    "about_wording",
    "general",
    "grounded",
    "read_lines",
    "read_sentences",
    "says_none",
    "slotted",
]

_REASONING = re.compile(r"\A\s*<think>.*?(?:</think>|\Z)", re.DOTALL)
_FENCE = re.compile(r"```[^\n`]*\n(.*?)(?:\n```|\Z)", re.DOTALL)
_BULLET = re.compile(r"^\s*(?:[-*•–‣]|\(?\d{1,2}[.):])\s+(?P<text>\S.*)$")
_SLOT = re.compile(r"\{+[%#]?\s*([^{}\n]{0,60}?)\s*[%#]?\}+")
_MATH = re.compile(r"\s*\$[^$\n]*\\[^$\n]*\$")
_LABEL = re.compile(
    r"^(?:\*\*|__)?(?:(?:new |additional |extra )?(?:rule|note|point|fact)s?)(?: \d+)?(?:\*\*|__)?\s*:\s*", re.I
)
_TITLED = re.compile(r"^(?:\*\*|__)[^*_\n]{1,60}(?::(?:\*\*|__)|(?:\*\*|__):)\s*")
_INTRO = re.compile(
    r"^(?:sure|certainly|of course|okay|ok|here(?:'s| is| are)|below (?:is|are)|i hope|this (?:rule|template)|"
    r"these (?:rules|notes)|the (?:template|following|notes|rules|updated|revised|new rule)|note that|let me|"
    r"i (?:have|will|would)|as an ai)\b",
    re.I,
)
_REFUSAL = re.compile(r"^\W*(?:i'?m sorry|sorry|i apologi[sz]e|i can(?:'t|not)|as an ai)\b", re.I)
_OFF_TOPIC = re.compile(
    r"\b(?:learning rates?|batch(?:es| sizes?)?|gpus?|cpus?|memory|hyper-?parameters?|hardware|checkpoints?|"
    r"epochs?|(?:software|source) code|lora|optimizer'?s? (?:settings|state)|data ?sets?|data augmentation)\b",
    re.I,
)
_ANSWERS = re.compile(
    r"\b(?:(?:include|state|mention|reveal|give|add|indicate|hint|write|provide)s?\b(?! no\b| nothing\b)[^.]{0,30}"
    r"\b(?:correct|right) (?:answer|choice|label|option))\b",
    re.I,
)
_NOT_LEARNING = re.compile(r"\b(?:memory|gpus?|hardware|inference-level|devices?)\b", re.I)
_COMPARED_TEXT = """
faster slower higher lower better worse more less fewer larger smaller greater stronger weaker easier harder
"""
_COMPARED = frozenset(_COMPARED_TEXT.split())
_PARROTED_WORDS = 6
_PARROTED_SHARE = 0.6
_MIN_WORDS, _MAX_WORDS = 4, 60


@dataclass(frozen=True)
class Lines:
    """What was taken from a reply, and what was not, each with the reason."""

    kept: tuple[str, ...]
    dropped: tuple[str, ...]


Check = Callable[[str], str | None]
"""Says in words why a line cannot be used; None when it can."""


def says_none(reply: str) -> bool:
    """Whether the reply says that there is nothing to add."""
    return " ".join(words(reply)) in ("none", "nothing", "nothing is missing", "no notes", "n a", "none none")


def read_lines(reply: str, *, known: Iterable[str], told: str, limit: int, checks: Iterable[Check] = ()) -> Lines:
    """The points of a reply, as plain sentences without marks.

    Reasoning in `<think>` tags goes, of a fenced reply the inside counts; lines that begin with a bullet or a number
    are points, and where there are none, whole sentences on lines of their own; openings ("Here is the template:")
    are no points. Bold titles, quotes and slots (`{premise}`, `{{ x }}`) become plain words. Dropped with a reason:
    lines too short or too long or without an end, stray braces that leave no sentence, lines that are mostly words of
    the prompt's own instructions, what the template or an earlier line says already, what a check objects to, and what
    is over the limit.

    Args:
        reply: The reply as it came.
        known: Points that the template has.
        told: The instructions of the prompt, to recognise a reply that repeats them.
        limit: Points to take at most.
        checks: Further checks.
    """
    text = _REASONING.sub("", reply)
    if fences := _FENCE.findall(text):
        text = "\n".join(fences)
    if _REFUSAL.match(text):
        return Lines((), ("the reply is a refusal",))
    rows = [line.strip() for line in text.splitlines() if line.strip()]
    bullets = _bullets(rows)
    # A reply that was cut off ends within a line; so does one that goes on after its last full stop.
    lines = bullets or [line for line in rows if not _INTRO.match(line) and line[-1:] in ".!"]
    kept: list[str] = []
    dropped: list[str] = []
    before = list(known)
    instructions = " ".join(words(told))
    for line in lines:
        point = _clean(line)
        why = _fault(point, instructions) or next((said for check in checks if (said := check(point))), None)
        if why is None and covered(point, [*before, *kept]):
            why = "it is said already"
        if why is None and len(kept) == limit:
            why = f"more than {limit}"
        if why is None:
            kept.append(point)
        else:
            dropped.append(f"{_short(point or line)}: {why}")
    if not lines:
        dropped.append(f"{_short(reply) or 'an empty reply'}: no line that begins with a dash")
    return Lines(tuple(kept), tuple(dropped))


def _bullets(rows: Iterable[str]) -> list[str]:
    """The points among the rows, each with the rows that it goes on in."""
    found: list[str] = []
    for row in rows:
        if point := _BULLET.match(row):
            found.append(point["text"])
        elif found and found[-1][-1] not in ".!?:" and not _INTRO.match(row):
            found[-1] += f" {row}"
    return found


def read_sentences(reply: str, source: str) -> Lines:
    """A description of one or two sentences, joined to one line; none when nothing usable is left."""
    text = _REASONING.sub("", reply)
    rows = [_clean(line) for line in text.splitlines() if line.strip() and not line.strip().endswith(":")]
    rows = [re.sub(r"^(?:description|answer)\s*:\s*", "", row, flags=re.I) for row in rows if not _REFUSAL.match(row)]
    joined = " ".join(row for row in rows if row)
    sentences = re.findall(r"[^.!?]+(?:[.!?](?=\s|$)|[.!?](?=\S)[^.!?]+)+", joined)
    kept = " ".join(sentence.strip() for sentence in sentences[:2])
    if len(words(kept)) < _MIN_WORDS:
        return Lines((), (f"{_short(reply)}: no full sentence",))
    if why := grounded(source)(kept):
        return Lines((), (f"{_short(kept)}: {why}",))
    return Lines((kept,), ())


def _clean(line: str) -> str:
    text = _BULLET.sub(r"\g<text>", line)
    # "**Clarity:** Write …" has a name that says nothing; "**Use short words**: …" is the rule itself.
    text = _TITLED.sub(lambda found: found[0] if len(words(found[0])) > 2 else "", text)
    text = _MATH.sub("", text)
    text = _SLOT.sub(r"\1", text)
    text = re.sub(r"[{}]|\*\*|__|`", "", text)
    text = _LABEL.sub("", " ".join(text.split()))
    text = text.lstrip("-*• ").strip()
    if len(text) > 1 and text[0] in "\"“'" and text[-1] in "\"”'":
        text = text[1:-1].strip()
    text = text[:1].upper() + text[1:]
    return text + "." if text and text[-1] not in '.!?:"”)' else text


def _fault(point: str, instructions: str) -> str | None:
    said = words(point)
    if len(said) < _MIN_WORDS:
        return "too short for a sentence"
    if len(said) > _MAX_WORDS:
        return f"{len(said)} words, more than {_MAX_WORDS}"
    if point.endswith((":", "?")):
        return "a heading or a question"
    # An answer may begin with the words of its question; one that has little else says nothing.
    echoed: set[int] = set()
    for at in range(len(said) - _PARROTED_WORDS + 1):
        if f" {' '.join(said[at : at + _PARROTED_WORDS])} " in f" {instructions} ":
            echoed |= set(range(at, at + _PARROTED_WORDS))
    return "it repeats the prompt" if len(echoed) >= _PARROTED_SHARE * len(said) else None


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return repr(flat if len(flat) <= 90 else flat[:87] + "...")


def grounded(source: str) -> Check:
    """A check that a point rests on a text: half of its content words, all its numbers and comparatives stand there.

    It finds what is made up and what is turned round ("faster" for "slower"), not every false sentence.
    """
    stems = content_words(source)
    known = set.union(*numbers(source))
    said = set(words(source))

    def check(point: str) -> str | None:
        own = content_words(point)
        if len(own & stems) < 0.5 * len(own):
            return "most of its words are not in the paper"
        # Small numbers are counted as words ("two losses"); only what the paper does not have at all is made up.
        if new := {value for value in numbers(point)[0] if value not in known}:
            return f"numbers that are not in the paper: {', '.join(sorted(new))}"
        if new := set(words(point)) & _COMPARED - said:
            return f"a comparison that is not in the paper: {', '.join(sorted(new))}"
        return None

    return check


def about_learning(point: str) -> str | None:
    """A check that a point is about how the optimizer learns, not about what it runs on."""
    found = _NOT_LEARNING.search(point)
    return f"not about how it learns ({found[0]})" if found else None


def about_wording(point: str) -> str | None:
    """A check that a rule is about words and sentences, and does not ask for the answer."""
    if found := _OFF_TOPIC.search(point):
        return f"not about the wording ({found[0]})"
    if _ANSWERS.search(point) and not re.search(r"\b(?:not|never|avoid|without|n't|no)\b", point, re.I):
        return "it asks for the answer in the text"
    return None


def general(example: str) -> Check:
    """A check that a rule is about texts in general: it takes few content words from the one example.

    A long text holds many of the words that any rule needs, so there half of the rule's own words count.
    """
    stems = content_words(example)

    def check(point: str) -> str | None:
        own = content_words(point)
        shared = own & stems
        most = 2 if len(stems) <= 24 else max(2, len(own) // 2)
        return f"about one text only ({', '.join(sorted(shared))})" if len(shared) > most else None

    return check


def slotted(point: str, noun: str) -> str:
    """The point as Jinja source with the span's name as a slot, so that it can be carried to another task."""
    from optaware.data.design._document import escape

    def name(found: re.Match[str]) -> str:
        slot = "{{ noun|capitalize }}" if found[1][0].isupper() else "{{ noun }}"
        return slot + found[2]

    return re.sub(rf"\b({re.escape(noun)})(s?)\b", name, escape(point), flags=re.I)
