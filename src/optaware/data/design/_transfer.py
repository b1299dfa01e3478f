"""Carrying a template over to another task: the schema is replaced, what is about the other task is left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from optaware.data._words import words
from optaware.data.design._document import DATA, FAULTS, NEEDS, OPTIMIZER, PAPER, Document
from optaware.tasks import Task

__all__ = ["Foreign", "adapted", "foreign_words"]


class Foreign(NamedTuple):
    """Words of another task that mean nothing in this one.

    Attributes:
        fields: From the names of its fields ("choice", "hypothesis").
        values: From the values that a field may have ("cause", "effect"); these are everyday words too.
    """

    fields: frozenset[str] = frozenset()
    values: frozenset[str] = frozenset()


def foreign_words(source: Task, target: Task) -> Foreign:
    """Words that name fields and values of one task and do not occur in the other's description.

    A rule against a fault of COPA that speaks of choices and causes says nothing to a rewriter of BoolQ. The name of
    the rewritten field is a slot in the template and needs no such care.
    """
    fields: set[str] = set()
    values: set[str] = set()
    for name, spec in source.fields.items():
        if name not in (source.span, source.label_field):
            fields |= set(words(name.replace("_", " ").rstrip("0123456789")))
            values |= {word for value in spec.allowed or () for word in words(value)}
    told = f"{target.description} {target.role} {' '.join(target.fields).replace('_', ' ')}"
    own = set(words(re.sub(r"[0-9]", "", told)))

    def both_forms(found: set[str]) -> frozenset[str]:
        return frozenset(form for word in found for form in (word, f"{word}s") if not {word, f"{word}s"} & own)

    return Foreign(both_forms(fields), both_forms(values))


def adapted(template: Document, schema: Sequence[str], foreign: Foreign) -> tuple[Document, list[str]]:
    """The template with the schema of another task, and notes on what was left out.

    Points on the optimizer stay all. Rules for the wording stay unless they name a field that only the other task has;
    rules against faults also go when they name one of its values. The few-shot module goes (`shots: none`).
    """
    notes = []
    strange = {OPTIMIZER: frozenset[str](), NEEDS: foreign.fields, FAULTS: foreign.fields | foreign.values}
    document = template.with_lines(DATA, schema).with_lines(PAPER, ())
    for title, out in strange.items():
        lines = document.lines(title)
        kept = [line for line in lines if not set(words(line)) & out]
        notes += [f"left out, for it speaks of the other task: {line[2:]}" for line in lines if line not in kept]
        document = document.with_lines(title, kept) if lines else document
    return document.with_meta(shots="none", phase=0), notes
