"""Carrying a template over to another task: the schema is replaced, what is about the other task is left out."""

from __future__ import annotations

from collections.abc import Sequence

from optaware.data._words import words
from optaware.data.design._document import DATA, FAULTS, NEEDS, OPTIMIZER, PAPER, Document
from optaware.tasks import Task

__all__ = ["adapted", "foreign_words"]


def foreign_words(source: Task, target: Task) -> frozenset[str]:
    """Words that name fields and labels of one task and do not occur in the other's description.

    "Choice", "cause", "hypothesis": a rule against a fault of COPA that speaks of them says nothing to a rewriter of
    BoolQ. The name of the rewritten field is a slot in the template and needs no such care.
    """

    def named(task: Task) -> set[str]:
        found: set[str] = set()
        for name, spec in task.fields.items():
            if name != task.span:
                found |= set(words(name.replace("_", " ").rstrip("0123456789")))
                found |= {word for value in spec.allowed or () for word in words(value)}
        return {form for word in found for form in (word, f"{word}s")} - {"label", "labels", "answer", "answers"}

    own = set(words(f"{target.description} {target.role} {' '.join(target.fields)}")) | named(target)
    return frozenset(named(source) - own)


def adapted(template: Document, schema: Sequence[str], foreign: frozenset[str]) -> tuple[Document, list[str]]:
    """The template with the schema of another task, and notes on what was left out.

    Points on the optimizer stay all. Rules for the wording and against faults stay unless they use words that only the
    other task has. The few-shot module goes (`shots: none`).
    """
    notes = []
    document = template.with_lines(DATA, schema).with_lines(PAPER, ())
    for title in (OPTIMIZER, NEEDS, FAULTS):
        lines = document.lines(title)
        kept = [line for line in lines if title == OPTIMIZER or not set(words(line)) & foreign]
        notes += [f"left out, for it speaks of the other task: {line[2:]}" for line in lines if line not in kept]
        document = document.with_lines(title, kept) if lines else document
    return document.with_meta(shots="none", phase=0), notes
