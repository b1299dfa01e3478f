"""Ablation plans: what a planner proposed, in rank order, and what had to be mended to read it."""

from __future__ import annotations

import ast
import math
import re
import warnings
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import FailFast, Field, model_validator

from optaware.records._base import Record

__all__ = [
    "AblationEntry",
    "AblationPlan",
    "Action",
    "Diagnostic",
    "EncodingDamage",
    "PageFacts",
    "PlanDocument",
    "PlanItem",
    "PlanValue",
    "Repair",
]

Action = Literal["REPLACE", "REMOVE", "ADD"]
ValueKind = Literal["none", "bool", "integer", "number", "percent", "pair", "list", "dict", "text"]

LITERAL_CHARS = 20_000
LITERAL_DEPTH = 40
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,299})")
_NUMBER = re.compile(r"[-+]?(?:(?:0|[1-9][0-9]{0,299})(?:\.[0-9]{0,300})?|\.[0-9]{1,300})(?:[eE][-+]?[0-9]{1,4})?")
_PERCENT = re.compile(r"([-+]?(?:[0-9]{1,12}(?:\.[0-9]{1,12})?|\.[0-9]{1,12})) ?%")
_PAIR = re.compile(r"([^\W\d][\w.-]{0,80}) {0,3}= {0,3}([^=\s][^=]{0,400})")
_BRACKET = re.compile(r"[\[\]{}()]")
_WORDS: dict[str, Any] = {"None": None, "null": None, "True": True, "true": True, "False": False, "false": False}


class PlanValue(Record):
    """One alternative of an entry: its text as written, and what the text says.

    Attributes:
        text: As it stands in the plan; this is what is rendered.
        kind: `integer`, `number`, `percent` (`10%`), `pair` (`k=v`, also `k=v, l=w`), `list` and `dict` (Python
            literals), `bool`, `none`, or `text`.
        value: JSON value of that kind: a percentage as its number (`10%` is 10.0), a pair as an object.
    """

    text: str
    kind: ValueKind
    value: Any

    @classmethod
    def read(cls, text: str) -> PlanValue:
        """Type a value by its text. What is not clearly something else stays text; nothing is evaluated as code."""
        if text in _WORDS:
            return cls.model_construct(text=text, kind="none" if _WORDS[text] is None else "bool", value=_WORDS[text])
        kind, value = _typed(text)
        return cls.model_construct(text=text, kind=kind, value=value)

    @model_validator(mode="after")
    def _text_and_value_agree(self) -> Self:
        if self.kind == "text":
            agrees = self.value == self.text
        else:
            read = PlanValue.read(self.text)
            agrees = (read.kind, read.value) == (self.kind, self.value)
        if not agrees:
            raise ValueError(f"the text {self.text!r} does not say {self.kind} {self.value!r}; change both together")
        return self


def _typed(text: str) -> tuple[ValueKind, Any]:
    if _INTEGER.fullmatch(text):
        return "integer", int(text)
    if _NUMBER.fullmatch(text) and math.isfinite(float(text)):
        return "number", float(text)
    if percent := _PERCENT.fullmatch(text):
        return "percent", float(percent[1])
    if text[:1] in ("[", "{") and text[-1:] in ("]", "}"):
        literal = read_literal(text)
        if literal is not None:
            return ("list" if isinstance(literal, list) else "dict"), literal
    if "=" in text and (pairs := _pairs(text)):
        return "pair", pairs
    return "text", text


def _pairs(text: str) -> dict[str, Any] | None:
    found: dict[str, Any] = {}
    for part in text.split(", ") if len(text) <= 500 else ():
        match = _PAIR.fullmatch(part)
        if match is None or match[1] in found:
            return None
        inner = PlanValue.read(match[2])
        found[match[1]] = inner.value if inner.kind in ("integer", "number", "bool", "none") else inner.text
    return found or None


@lru_cache(maxsize=64)
def read_literal(text: str) -> list[Any] | dict[str, Any] | None:
    """A Python list or dict literal as a JSON value; None when it is not one, or is longer or deeper than allowed.

    The last ones are kept, because a value is read again whenever it is checked; whoever gets one must not change it.
    """
    if len(text) > LITERAL_CHARS or _depth(text) > LITERAL_DEPTH:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = _plain(ast.literal_eval(text))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, list | dict) else None


def _depth(text: str) -> int:
    depth = deepest = 0
    for match in _BRACKET.finditer(text):
        depth += 1 if match[0] in "[{(" else -1
        deepest = max(deepest, depth)
    return deepest


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):
            raise ValueError("keys that are not text")
        return {key: _plain(item) for key, item in value.items()}
    if value is None or isinstance(value, str | bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    raise ValueError(f"{type(value).__name__} is no JSON value")


class AblationEntry(Record):
    """One planned ablation.

    Attributes:
        name: Its name, unique in a plan.
        ablated_part: The part of the method that is changed, in words.
        action: REPLACE, REMOVE or ADD.
        replacement: The alternatives; None where there is none.
        metrics: What is measured, in words.
    """

    name: str = Field(min_length=1)
    ablated_part: str = Field(min_length=1)
    action: Action
    replacement: tuple[PlanValue, ...] | dict[str, PlanValue] | None = None
    metrics: Annotated[tuple[str, ...], FailFast()] = ()

    @model_validator(mode="after")
    def _one_line_each(self) -> Self:
        for text in (self.name, self.ablated_part, *self.metrics):
            if "\n" in text or text != text.strip() or not text:
                raise ValueError(f"{text[:80]!r} must be one line, not empty, without spaces at its ends")
        return self

    @property
    def values(self) -> tuple[PlanValue, ...]:
        """The alternatives, whichever way they are given."""
        if isinstance(self.replacement, dict):
            return tuple(self.replacement.values())
        return self.replacement or ()


class AblationPlan(Record):
    """Planned ablations in rank order.

    Attributes:
        entries: The first is the most important one.
        model: The planner.
        paper: Identifier of the paper that the plan is about.
        task: Whose ablations were asked for: the authors' own, or those that a reviewer misses.
    """

    entries: tuple[AblationEntry, ...]
    model: str | None = None
    paper: str | None = None
    task: Literal["author", "reviewer"] | None = None


class Diagnostic(Record):
    """What a reader of a plan should know about its text: error (not understood), warning, or note."""

    level: Literal["error", "warning", "note"]
    code: str
    given: str
    why: str
    next: str
    line: int | None = None


class Repair(Record):
    """One change that was made in order to read the text: what stood there, and what it was read as."""

    code: str
    before: str
    after: str
    line: int | None = None


class EncodingDamage(Record):
    """UTF-8 that had been read in another encoding, and was put back.

    Attributes:
        read_as: The encoding that the bytes had wrongly been read in.
        rounds: How often in a row.
        mended: Runs of non-ASCII characters put back.
        left: Runs left as they are, because they are no mis-read UTF-8.
    """

    read_as: str
    rounds: int
    mended: int
    left: int


class PageFacts(Record):
    """What a rendered page says besides trace and entries; `head`, `middle` and `tail` keep its own words between them.

    Attributes:
        model: The planner.
        paper: Identifier of the paper.
        task: By the plan box's colours: author (#f3e5f5) or reviewer (#e8f5e8).
        trace_heading: Text of the first box's heading.
        plan_heading: Text of the second box's heading.
        head: All text before the trace.
        middle: All text between trace and first entry.
        tail: All text after the last entry.
    """

    model: str | None = None
    paper: str | None = None
    task: Literal["author", "reviewer"] | None = None
    trace_heading: str | None = None
    plan_heading: str | None = None
    head: str | None = None
    middle: str | None = None
    tail: str | None = None


class PlanItem(Record):
    """One place in a plan's text: the entry that was read there, or None with the diagnostics that say why not.

    Attributes:
        entry: The entry, when it was understood.
        source: The text that it was read from.
        line: Its first line, counted from 1.
    """

    entry: AblationEntry | None
    source: str | None = None
    line: int | None = None
    diagnostics: Annotated[tuple[Diagnostic, ...], FailFast()] = ()
    repairs: Annotated[tuple[Repair, ...], FailFast()] = ()


class PlanDocument(Record):
    """A plan as it was read, with everything needed to write the (mended) text again."""

    format: Literal["optaware-plan/1"] = "optaware-plan/1"
    read_from: Literal["page", "markdown", "jsonl", "json", "reply"]
    page: PageFacts = PageFacts()
    encoding: Annotated[tuple[EncodingDamage, ...], FailFast()] = ()
    trace: str | None = None
    items: Annotated[tuple[PlanItem, ...], FailFast()] = ()
    diagnostics: Annotated[tuple[Diagnostic, ...], FailFast()] = ()
    repairs: Annotated[tuple[Repair, ...], FailFast()] = ()

    @property
    def plan(self) -> AblationPlan:
        """The entries that were understood."""
        entries = tuple(item.entry for item in self.items if item.entry is not None)
        return AblationPlan(entries=entries, model=self.page.model, paper=self.page.paper, task=self.page.task)

    @property
    def all_diagnostics(self) -> tuple[Diagnostic, ...]:
        """Those of the document, then those of its entries."""
        return (*self.diagnostics, *(found for item in self.items for found in item.diagnostics))

    @property
    def understood(self) -> bool:
        """Whether nothing of the text was lost."""
        return not any(found.level == "error" for found in self.all_diagnostics)
