"""Classification tasks of Super-NaturalInstructions, read from the JSON files as they are published."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optaware._io import read_json
from optaware.errors import InputError, ProblemList
from optaware.tasks._fields import FieldSpec
from optaware.tasks._jsonl import Numbered
from optaware.tasks._task import Task

__all__ = ["PREFIX", "SuperNaturalInstructions"]

PREFIX = "super_ni/"
_MOST_LABELS = 50


class SuperNaturalInstructions(Task):
    """One task of Super-NaturalInstructions whose answers come from a small set of labels.

    It is named `super_ni/<file name without .json>`, or by the first part of it (`super_ni/task363`), and looked up in
    `<data directory>/super_ni/`; or by the path of the JSON file. The answer options are the set of outputs that occur
    in the file, in alphabetical order. Instances with several accepted outputs or
    without an input are left out, and counted.

    The prompt is the task's definition, then the input. Prompts longer than a run's `max_length` are cut from the
    left, so the definition loses its beginning first; the style `input` leaves the definition out.

    Differs from the paper: its prompt also shows two solved examples, and answers are generated freely; here there are
    none and the options are scored, as for every task of this package.

    Args:
        name: `super_ni/…`, or the path of a JSON file.
    """

    version = "1"
    title = "Super-NaturalInstructions: a classification task with its definition"
    description = "An instance is a task's definition and an input; the answer is one of a few fixed labels."
    role = (
        "The input is what the label is about. A rewrite must leave the label that the definition asks for unchanged."
    )
    citation = "Wang et al., EMNLP 2022 (Super-NaturalInstructions)"
    licence = "Apache-2.0 for the collection; each task's instances keep the licence that its file states"
    fields: Mapping[str, FieldSpec] = {
        "definition": FieldSpec(type="text", description="What the task asks for."),
        "input": FieldSpec(type="text", description="What the question is about."),
        "options": FieldSpec(type="text-list", description="All labels of the task."),
        "label": FieldSpec(type="integer", description="Number of the right label."),
    }
    span = "input"
    prompt_styles = ("default", "input")
    data_folder = "super_ni"
    id_column = "id"

    def __init__(self, name: str) -> None:
        self.path = Path(name) if name.endswith(".json") else None
        self.name = PREFIX + self.path.stem if self.path else name

    def file(self, root: Path | None) -> Path | None:
        """The task's JSON file: its own path, or the one in `root/super_ni`; None when there is none.

        Raises:
            InputError: Several files begin with the name.
        """
        if self.path is not None:
            return self.path
        if root is None:
            return None
        name = self.name.removeprefix(PREFIX)
        folder = root / self.data_folder
        if (exact := folder / f"{name}.json").is_file():
            return exact
        found = sorted(folder.glob(f"{name}_*.json")) if name and "*" not in name else []
        if len(found) > 1:
            said = ", ".join(path.stem for path in found[:5])
            raise InputError.of(
                "task-ambiguous", self.name, f"several tasks begin so: {said}", "Give more of the name."
            )
        return found[0] if found else None

    def read(self, path: Path, problems: ProblemList, notes: list[str]) -> Numbered:
        """The instances as rows, numbered from 1; faults of the file are added to `problems`."""
        try:
            data = read_json(path)
        except InputError as error:
            problems.problems.extend(error.problems)
            return []
        instances = data.get("Instances") if isinstance(data, dict) else None
        definition = data.get("Definition") if isinstance(data, dict) else None
        if not isinstance(instances, list) or not definition:
            problems.add(
                "task-file-form",
                path.name,
                "it has no Definition or no list of Instances",
                "Give a task file of Super-NaturalInstructions.",
                str(path),
            )
            return []
        text = " ".join(definition) if isinstance(definition, list) else str(definition)
        single = [(n, row) for n, row in enumerate(instances, 1) if len(_outputs(row)) == 1 and _has_input(row)]
        if left := len(instances) - len(single):
            notes.append(f"{self.name}: {left} of {len(instances)} instances have no input or not one output, left out")
        labels = sorted(Counter(_outputs(row)[0] for _, row in single))
        if not 2 <= len(labels) <= _MOST_LABELS:
            problems.add(
                "task-one-label" if len(labels) < 2 else "task-not-classification",
                f"{self.name}: {len(labels)} different outputs",
                "there is nothing to choose" if len(labels) < 2 else "it does not answer from a small set of labels",
                f"Use a task with 2 to {_MOST_LABELS} labels.",
                str(path),
            )
            return []
        number = {label: index for index, label in enumerate(labels)}
        return [
            (
                n,
                {
                    "id": row.get("id"),
                    "definition": text,
                    "input": row.get("input"),
                    "options": labels,
                    "label": number[_outputs(row)[0]],
                },
            )
            for n, row in single
        ]

    def _label(self, fields: Mapping[str, Any], problems: ProblemList) -> int | None:
        return int(fields["label"])

    def _option_names(self, fields: Mapping[str, Any]) -> Sequence[str]:
        return list(fields["options"])

    def _render(self, fields: Mapping[str, Any], style: str) -> tuple[str, Sequence[str]]:
        head = "" if style == "input" else f"{fields['definition'].strip()}\n\n"
        prompt = f"{head}Input: {fields['input'].strip()}\nAnswer:"
        return prompt, [f" {option}" for option in fields["options"]]


def _has_input(row: Any) -> bool:
    given = row.get("input")
    return not isinstance(given, str) or bool(given.strip())


def _outputs(row: Any) -> list[str]:
    output = row.get("output") if isinstance(row, dict) else None
    return [text.strip() for text in ([output] if isinstance(output, str) else output or []) if isinstance(text, str)]
