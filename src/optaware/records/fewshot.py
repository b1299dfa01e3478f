"""Few labelled rows of one task: what prompts are tuned on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from optaware.records._base import Record

__all__ = ["FewShot"]


class FewShot(Record):
    """K training rows of each label, as many others to judge candidates on, and test rows.

    All are drawn with `split_seed` (with the run's seed as well when `vary` is set, so that each seed is another
    few-shot set). Training and fitness rows come from the train split, without common rows; test rows from the
    test split.

    Attributes:
        task: Name of a built-in task, or path of a task file.
        per_class: Training rows of each label.
        fitness_per_class: Rows of each label that candidates are compared on; never reported.
        test: Test rows.
        split_seed: Draws the rows.
        vary: Whether each run seed draws training and fitness rows of its own. The test rows stay the same.
        prompt: Which of the task's prompt styles is used.
        task_sha256: Content hash of the task; None: not checked.
    """

    kind: Literal["few-shot"] = "few-shot"
    task: str
    per_class: Annotated[int, Field(ge=1)] = 16
    fitness_per_class: Annotated[int, Field(ge=1)] = 16
    test: Annotated[int, Field(ge=1)] = 400
    split_seed: int = 0
    vary: bool = True
    prompt: str = "default"
    task_sha256: str | None = None

    @property
    def title(self) -> str:
        """A short name: the task and K."""
        name = self.task.rstrip("/").rsplit("/", 1)[-1].removesuffix(".yaml").removesuffix(".json")
        return f"{name}-{self.per_class}shot"
