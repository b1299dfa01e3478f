"""Few-shot modules: what the templates of rewriter and judge are told about one task, and the examples they show."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from optaware._io import read_yaml
from optaware.errors import ProblemList
from optaware.records import JudgeShot, Record, parse_record
from optaware.tasks import Task

__all__ = ["TEMPLATES", "FewShotModule", "JudgeShot", "RewriteShot", "find_module"]

TEMPLATES = Path(__file__).parent / "templates"

Given = dict[str, str | list[str]]
"""Lines shown beside the span, by their heading."""


class RewriteShot(Record):
    """One text and how it is rewritten, by template name (`oat`, `paraphrase`, or a template of the user's)."""

    given: Given = Field(default_factory=dict)
    text: str
    rewrites: Annotated[dict[str, str], Field(min_length=1)]


class FewShotModule(Record):
    """What differs from task to task in the prompts; what is left out comes from the task's own description."""

    version: Literal[1] = 1
    span: str | None = None
    """Field that the module is written for; it is used only for tasks that rewrite this field. None: for any."""
    noun: str | None = None
    """What the span is called in a sentence ("premise")."""
    heading: str | None = None
    """What stands before the span ("Premise")."""
    about: str | None = None
    """One sentence: what a reader will later do with the text."""
    neutral: str
    """How a rewrite stays neutral about the answer."""
    keeps: str | None = None
    """When a rewrite plays the same role in the example."""
    rewriter_given: dict[str, str] = Field(default_factory=dict)
    """Lines that the rewriter sees beside the span: heading -> field. The packaged modules show none: a rewriter that
    does not see the answer cannot leak it."""
    judge_given: dict[str, str] | None = None
    """Lines that the judge of `role` sees: heading -> field, `options` or `answer`. None: all other text fields, the
    options and the right answer."""
    rewriter: tuple[RewriteShot, ...] = ()
    meaning: tuple[JudgeShot, ...] = ()
    role: tuple[JudgeShot, ...] = ()

    def faults(self) -> list[str]:
        """What is inconsistent in the module, in words."""
        headings: tuple[tuple[str, dict[str, str] | None, list[Given]], ...] = (
            ("rewriter", self.rewriter_given, [shot.given for shot in self.rewriter]),
            ("role", self.judge_given, [shot.given for shot in self.role]),
        )
        return [
            f"{kind} example {number} gives {list(given)}, rows give {list(wanted)}"
            for kind, wanted, shots in headings
            for number, given in enumerate(shots, start=1)
            if wanted is not None and list(given) != list(wanted)
        ]


def find_module(task: Task, template: Path | None = None) -> FewShotModule:
    """The few-shot module for a task.

    Searched in this order: `fewshot/<task name>.yaml` beside a user's template; `<task file>.fewshot.yaml` beside a
    user's task file (`mail.yaml` → `mail.fewshot.yaml`); the packaged module of a built-in task; the generic one.

    Args:
        task: The task.
        template: Path of the user's template; None for a built-in one.

    Raises:
        InputError: The module is malformed (all faults at once).
    """
    if template is not None and (path := template.parent / "fewshot" / f"{task.name}.yaml").is_file():
        return _read(path, task, strict=True)
    own = getattr(task, "path", None)
    if isinstance(own, Path):
        path = own.with_name(f"{own.stem}.fewshot.yaml")
        return _read(path if path.is_file() else TEMPLATES / "fewshot" / "generic.yaml", task, strict=True)
    for name in (task.name, task.data_folder):
        if (path := TEMPLATES / "fewshot" / f"{name}.yaml").is_file():
            module = _read(path, task, strict=False)
            if module.span in (None, task.span):
                return module
    return _read(TEMPLATES / "fewshot" / "generic.yaml", task, strict=True)


def _read(path: Path, task: Task, *, strict: bool) -> FewShotModule:
    module = parse_record(FewShotModule, read_yaml(path), str(path))
    problems = ProblemList(str(path))
    for fault in module.faults():
        problems.add("fewshot-inconsistent", path.name, fault, "Give every example the lines that rows have.")
    if strict and module.span not in (None, task.span):
        problems.add(
            "fewshot-span",
            f"span: {module.span}",
            f"task {task.name} rewrites the field {task.span!r}",
            "Correct the span of the module or of the task.",
        )
    known = {*task.fields, "options", "answer"}
    fields = {**module.rewriter_given, **(module.judge_given or {})}
    if strict or module.span == task.span:
        for heading, name in fields.items():
            if name not in known:
                problems.add(
                    "fewshot-field",
                    f"{heading}: {name}",
                    f"task {task.name} has no such field",
                    f"Use one of: {', '.join(sorted(known))}.",
                )
    if "answer" in module.rewriter_given.values():
        problems.add(
            "fewshot-answer",
            "rewriter_given shows the answer",
            "a rewriter that sees the answer leaks it",
            "Show the answer to the judge only.",
        )
    problems.raise_if_any()
    return module
