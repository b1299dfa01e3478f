"""Tasks whose answer is one of a fixed set of words, with an integer label column."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from optaware.errors import ProblemList
from optaware.tasks._task import Task

__all__ = ["VerbalizerTask"]


class VerbalizerTask(Task):
    """A task with label words.

    Attributes:
        words: The label words, in the order of the labels (the verbalizer).
        names: The same as a person would read them, where that differs.
    """

    words: tuple[str, ...]
    names: tuple[str, ...] = ()

    def _label(self, fields: Mapping[str, Any], problems: ProblemList) -> int | None:
        return int(fields["label"])

    def _option_names(self, fields: Mapping[str, Any]) -> Sequence[str]:
        return self.names or self.words

    def _render(self, fields: Mapping[str, Any], style: str) -> tuple[str, Sequence[str]]:
        prompt = self._prompt(fields, style)
        joint = "" if prompt.endswith("\n") else " "
        return prompt, [joint + word for word in self.words]

    @abstractmethod
    def _prompt(self, fields: Mapping[str, Any], style: str) -> str:
        """The prompt; it ends in a newline when the answer stands on a line of its own."""
