"""What a task file says, as a record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field, StrictBool, StrictInt, StrictStr

from optaware.records import Record
from optaware.tasks._fields import FieldSpec

__all__ = ["SplitPaths", "TaskFile"]

Text = Annotated[str, Field(min_length=1, pattern=r"\S")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]


class SplitPaths(Record):
    """JSONL files of the rows, relative to the task file."""

    train: Text | None = None
    dev: Text | None = None
    test: Text | None = None


class TaskFile(Record):
    """A task of the user's own."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
    version: Text
    title: str = ""
    description: Text
    """What an instance is and what each field does: the rewriter and the judge are told this."""
    role: str = ""
    """What the span does and what a rewrite of it has to keep."""
    citation: Text
    licence: Text
    fields: Annotated[dict[Name, FieldSpec], Field(min_length=1)]
    span: Text
    label: Text
    """The field that says which option is right: its number from 0, its word, or one of `labels`."""
    options: Annotated[tuple[Text, ...], Field(min_length=2)] | None = None
    """The answer options: words, or templates that may use fields."""
    options_from: Text | None = None
    """Instead of `options`: a field of type text-list that holds them."""
    labels: tuple[StrictBool | StrictInt | StrictStr, ...] | None = None
    """What the label field holds for each option, where that is neither its number nor its word."""
    prompt: Text
    """Jinja template of the text before the answer."""
    styles: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")], Text] = Field(default_factory=dict)
    """Further prompts by name."""
    loss: Literal["options", "language-model"] = "options"
    id: Text | None = None
    """A column that must be unique within a file; it need not be among `fields`."""
    splits: SplitPaths | None = None

    def faults(self) -> Iterator[tuple[str, str]]:
        """What is wrong between the fields: the entry at fault, and why."""
        names = ", ".join(self.fields)
        for key, value, kind in (
            ("span", self.span, "text"),
            ("label", self.label, None),
            ("options_from", self.options_from, "text-list"),
        ):
            if value is None:
                continue
            if value not in self.fields:
                yield key, f"it is not among the fields ({names})"
            elif kind and self.fields[value].type != kind:
                yield key, f"that field must be of type {kind}, not {self.fields[value].type}"
        if self.span == self.label:
            yield "span", "span and label name the same field"
        if (self.options is None) == (self.options_from is None):
            yield "options", "give either options or options_from"
        if self.labels is not None:
            if self.options is None:
                yield "labels", "labels go with options"
            elif len(self.labels) != len(self.options):
                yield "labels", f"there are {len(self.labels)} labels for {len(self.options)} options"
            if len({repr(label) for label in self.labels}) < len(self.labels):
                yield "labels", "two labels are the same"
        if "default" in self.styles:
            yield "styles", "the default prompt is the one under 'prompt'"
        if self.splits is not None:
            files = [name for name in self.splits.model_dump().values() if name is not None]
            if not files:
                yield "splits", "give at least one of train, dev and test"
            if len(set(files)) < len(files):
                yield "splits", "two splits name the same file, so rows would be trained on and tested on"
