"""A mixture of tasks: several tasks learnt together or one by one, and others that are only tested on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from optaware.records._base import Record

__all__ = ["TaskMixture"]

_Share = Annotated[float, Field(gt=0, le=1)]


class TaskMixture(Record):
    """Tasks of a multi-task method, with the rows of each.

    Rows are drawn as protocol `free` does: from the official splits where a task has them, else from its only split.

    Attributes:
        tasks: Tasks that are trained on, at least two.
        held_out: Tasks that no training row comes from; their test rows measure zero-shot accuracy.
        pool: The tasks whose training rows are pooled for what all share (the seed adapter); None: all `tasks`. Naming
            the tasks of an earlier mixture here adds new tasks to it without training the shared part again.
        train: Training rows of a task.
        dev: Validation rows of a task.
        test: Test rows of a task.
        shares: Share of its training rows that a task uses, by task; 1 where it is not named. Makes mixes uneven.
        split_seed: Draws which rows are for what.
        prompt: Which prompt style is used where a task has it; `default` elsewhere.
        task_sha256: Content hash of each task, so that editing one is another mixture; not checked when it is empty.
    """

    kind: Literal["mixture"] = "mixture"
    tasks: Annotated[tuple[str, ...], Field(min_length=2)]
    held_out: tuple[str, ...] = ()
    pool: tuple[str, ...] | None = None
    train: Annotated[int, Field(ge=1)] = 320
    dev: Annotated[int, Field(ge=0)] = 32
    test: Annotated[int, Field(ge=1)] = 100
    shares: dict[str, _Share] = Field(default_factory=dict)
    split_seed: int = 0
    prompt: str = "default"
    task_sha256: dict[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> TaskMixture:
        faults = []
        every = (*self.tasks, *self.held_out)
        if twice := sorted({name for name in every if every.count(name) > 1}):
            faults.append(f"tasks and held_out name {', '.join(twice)} more than once")
        for field, names in (("pool", self.pool or ()), ("shares", self.shares)):
            if unknown := sorted(set(names) - set(self.tasks)):
                faults.append(f"{field} names {', '.join(unknown)}, which tasks does not")
        if self.pool is not None and not self.pool:
            faults.append("pool is empty; leave it out to pool all tasks")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    @property
    def pooled(self) -> tuple[str, ...]:
        """The tasks of the pool, in their order in `tasks`."""
        return self.tasks if self.pool is None else tuple(name for name in self.tasks if name in self.pool)

    @property
    def title(self) -> str:
        """A short name: how many tasks, and the first of them."""
        first = self.tasks[0].rstrip("/").rsplit("/", 1)[-1].removesuffix(".yaml").removesuffix(".json")
        return f"mix{len(self.tasks)}-{first.split('_')[0]}"
