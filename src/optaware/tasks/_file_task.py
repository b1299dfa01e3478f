"""Tasks from YAML files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from optaware._io import canonical_json, file_sha256, read_yaml, text_sha256
from optaware.errors import InputError, Problem, ProblemList
from optaware.records import parse_record
from optaware.tasks._file_record import TaskFile
from optaware.tasks._task import Task
from optaware.tasks._templates import compile_template, fill

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["FileTask", "load_task_file"]


class FileTask(Task):
    """A task read from a file (see `TaskFile` for what the file says).

    An option that does not begin with white space gets one space in front, unless the prompt ends its line; spaces at
    the end of a prompt are taken off, as MeZO does.
    """

    def __init__(
        self, spec: TaskFile, path: Path, templates: Mapping[str, Template], words: Sequence[Template]
    ) -> None:
        self.spec = spec
        self.path = path
        self.name, self.version, self.title = spec.name, spec.version, spec.title or spec.name
        self.description = spec.description.strip()
        self.role = spec.role.strip() or _default_role(spec)
        self.citation, self.licence = spec.citation, spec.licence
        self.fields, self.span, self.loss = spec.fields, spec.span, spec.loss
        self.label_field = spec.label
        self.prompt_styles = ("default", *spec.styles)
        self.data_folder = spec.name
        self.id_column = spec.id
        self._templates = templates
        self._words = words

    @property
    def split_files(self) -> dict[str, Path]:
        """The data files that the task file names, by split."""
        named = self.spec.splits.model_dump() if self.spec.splits else {}
        return {split: self.path.parent / name for split, name in named.items() if name is not None}

    @property
    def sha256(self) -> str:
        """Identity of the task: hash over the task file and the data files that it names."""
        files = {"task": self.path, **self.split_files}
        return text_sha256(canonical_json({name: file_sha256(path) for name, path in files.items()}))

    def _label(self, fields: Mapping[str, Any], problems: ProblemList) -> int | None:
        value = fields[self.spec.label]
        options = [word.strip() for word in self._plain_options(fields)]
        if self.spec.labels is not None:
            for number, label in enumerate(self.spec.labels):
                if type(label) is type(value) and label == value:
                    return number
            known = ", ".join(map(repr, self.spec.labels))
        else:
            if isinstance(value, int) and not isinstance(value, bool):
                return value
            if isinstance(value, str) and value.strip() in options:
                return options.index(value.strip())
            known = ", ".join(map(repr, options))
        problems.add(
            "label-out-of-range",
            f"{self.spec.label} = {value!r}",
            f"it is none of {known}",
            "Correct the label, or say under 'labels' what the data holds for each option.",
        )
        return None

    def _plain_options(self, fields: Mapping[str, Any]) -> list[str]:
        if self.spec.options_from is not None:
            return list(fields[self.spec.options_from])
        return [fill(word, fields, f"option {number}", str(self.path)) for number, word in enumerate(self._words)]

    def _option_names(self, fields: Mapping[str, Any]) -> Sequence[str]:
        labels = self.spec.labels
        if labels is not None and all(isinstance(label, str) for label in labels):
            return [str(label) for label in labels]
        return self._plain_options(fields)

    def _render(self, fields: Mapping[str, Any], style: str) -> tuple[str, Sequence[str]]:
        prompt = fill(self._templates[style], fields, f"prompt {style!r}", str(self.path)).rstrip(" ")
        joint = "" if not prompt or prompt.endswith("\n") else " "
        options = self._plain_options(fields)
        return prompt, [option if option[:1].isspace() else joint + option for option in options]


def _default_role(spec: TaskFile) -> str:
    return (
        f"The {spec.span} may be worded differently, but it must mean the same, the same answer must stay right, "
        "and the answer must not become easier to see."
    )


def load_task_file(path: Path, builtin: Sequence[str]) -> FileTask:
    """Read a task file and check all of it: fields, templates, and that its data files are there.

    Args:
        path: The YAML file.
        builtin: Names that are taken.

    Raises:
        InputError: Everything that is wrong with the file, each with its line.
    """
    data = read_yaml(path)
    lines = _lines(path)
    if not isinstance(data, dict):
        raise InputError(
            Problem("not-a-mapping", path.name, "a task file is a mapping of fields", "See docs/tasks.md.", str(path))
        )
    try:
        spec = parse_record(TaskFile, data, str(path))
    except InputError as error:
        raise InputError(*(_with_line(problem, path, lines) for problem in error.problems)) from error
    problems = ProblemList(str(path))

    def place(key: str) -> str:
        return f"{path}:{lines[key]}" if key in lines else str(path)

    for key, why in spec.faults():
        given = f"{key} = {data[key]!r}" if key in data else key
        problems.add("task-inconsistent", given, why, "Correct the entry.", place(key))
    templates = {}
    for style, text, key in (
        ("default", spec.prompt, "prompt"),
        *((name, text, f"styles.{name}") for name, text in spec.styles.items()),
    ):
        if template := compile_template(text, spec.fields, key, problems, place(key)):
            templates[style] = template
    words = [
        compile_template(text, spec.fields, f"options.{number}", problems, place(f"options.{number}"))
        for number, text in enumerate(spec.options or ())
    ]
    if spec.name in builtin:
        problems.add("task-name-taken", spec.name, "a built-in task has this name", "Choose another.", place("name"))
    task = FileTask(spec, path, templates, [word for word in words if word is not None])
    for split, file in task.split_files.items():
        if not _there(file):
            where = place(f"splits.{split}")
            problems.add("file-missing", str(file), "there is no such file", "Paths start at the task file.", where)
    problems.raise_if_any()
    return task


def _there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name longer than file systems allow
        return False


def _with_line(problem: Problem, path: Path, lines: Mapping[str, int]) -> Problem:
    key = problem.given.split(" = ", 1)[0]
    # A field that is missing has no line of its own: its parent's is the nearest.
    while key and key not in lines:
        key = key.rpartition(".")[0]
    where = f"{path}:{lines[key]}" if key else str(path)
    return Problem(problem.code, problem.given, problem.why, problem.next, where)


def _lines(path: Path) -> dict[str, int]:
    """Line number (from 1) of every key of a YAML file, by its dotted path."""
    found: dict[str, int] = {}
    seen: set[int] = set()

    def walk(node: yaml.Node | None, prefix: str) -> None:
        if id(node) in seen:  # an alias: its keys are listed where they stand
            return
        seen.add(id(node))
        children: list[tuple[str, yaml.Node, yaml.Node]] = []
        if isinstance(node, yaml.MappingNode):
            children = [(str(key.value), key, value) for key, value in node.value]
        elif isinstance(node, yaml.SequenceNode):
            children = [(str(number), item, item) for number, item in enumerate(node.value)]
        for name, place, child in children:
            dotted = f"{prefix}.{name}" if prefix else name
            found[dotted] = place.start_mark.line + 1
            walk(child, dotted)

    walk(yaml.compose(path.read_text("utf-8"), Loader=yaml.SafeLoader), "")
    return found
