"""Which adapters a run needs, and what identifies each, so that runs share them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from optaware.errors import InputError
from optaware.records import ModelRef, Record, RunSpec, SeededLoRA, TaskMixture, short_id
from optaware.train._seeds import derive_seed, generator

__all__ = ["ExpertSpec", "Needed", "expert_specs", "parts"]

_ON_VALIDATION = ("scaled", "learned", "validation", "greedy-soup")


class ExpertSpec(Record):
    """Everything that decides one adapter: the rows that it is trained on, where it starts, how it is trained.

    How it will be merged is no part of it, so arms that differ in merging only share their experts.
    """

    version: Literal[1] = 1
    model: ModelRef
    tasks: tuple[str, ...]
    task_sha256: dict[str, str]
    train: int
    shares: dict[str, float]
    split_seed: int
    prompt: str
    max_length: int
    fraction: float
    """Share of the tasks' pooled rows; smaller shares are subsets of larger ones."""
    shuffled: bool
    """Whether the labels were shuffled among the rows."""
    parent: str | None
    """Id of the seed adapter that it starts from; None: from a random A and B = 0."""
    init: str
    """Label that the random A is drawn for; experts of one label start alike."""
    steps: int
    batch_size: int
    lr: float
    rank: int
    alpha: float
    weight_decay: float
    max_grad_norm: float | None
    seed: int
    threads: int
    device: str
    deterministic: bool = False

    @property
    def slug(self) -> str:
        """A readable name for the adapter's folder."""
        what = self.tasks[0].rsplit("/", 1)[-1] if len(self.tasks) == 1 else f"{len(self.tasks)}-tasks"
        start = "seeded" if self.parent else self.init.rsplit("/", 1)[-1]
        noise = "-shuffled" if self.shuffled else ""
        text = f"{what}{noise}-{start}-s{self.seed}"
        return "".join(char if char.isalnum() or char in "-_." else "-" for char in text)[:60]


@dataclass(frozen=True)
class Needed:
    """The adapters of one run.

    Attributes:
        seed: The seed adapter; None when nothing starts from it.
        experts: One per task, in the mixture's order.
        ineffective: Experts of shuffled labels, by task.
        multitask: One adapter for all tasks.
    """

    seed: ExpertSpec | None = None
    experts: dict[str, ExpertSpec] = field(default_factory=dict)
    ineffective: dict[str, ExpertSpec] = field(default_factory=dict)
    multitask: ExpertSpec | None = None

    def in_order(self) -> list[ExpertSpec]:
        """All of them, each after the one that it starts from."""
        alone = [spec for spec in (self.seed, self.multitask) if spec is not None]
        return [*alone, *self.experts.values(), *self.ineffective.values()]


def parts(spec: RunSpec) -> tuple[SeededLoRA, TaskMixture]:
    """The run's method and data, known to be this method's.

    Raises:
        InputError: They are another method's.
    """
    if not isinstance(spec.method, SeededLoRA) or not isinstance(spec.data, TaskMixture):
        raise InputError.of(
            "data-kind",
            f"{spec.method.name} on data of kind {spec.data.kind}",
            "seeded-lora learns from a mixture of tasks",
            "Use data of kind mixture.",
        )
    return spec.method, spec.data


def expert_specs(spec: RunSpec) -> Needed:
    """The adapters that a run needs, with their steps under the run's budget.

    With E = `schedule.steps`, S = `seed_steps` and N tasks: the seed takes S steps and a seeded expert E. An unseeded
    expert takes E + S (`per-expert`) or E + S/N (`total`), rounded. The multitask adapter takes S + N·E.

    Raises:
        InputError: More ineffective experts than tasks; a merge that needs validation rows, and none.
    """
    method, data = parts(spec)
    count, own = len(data.tasks), spec.schedule.steps
    if method.merge in _ON_VALIDATION and method.experts == "per-task" and not data.dev:
        raise InputError.of(
            "validation-empty",
            f"merge: {method.merge} with dev: 0",
            "merging weights are chosen on a validation mix, and this one is empty",
            "Give the mixture dev rows (data.dev of at least 1), or merge uniformly.",
        )
    if method.ineffective > count:
        raise InputError.of(
            "too-many-ineffective",
            f"{method.ineffective} ineffective experts",
            f"the mixture has {count} tasks",
            "Ask for at most one a task.",
        )
    if method.experts == "multitask":
        return Needed(multitask=_one(spec, data.tasks, steps=method.seed_steps + count * own, init="multitask"))
    seed = None
    if method.start == "seeded" or method.experts == "seed-only":
        seed = _one(spec, data.pooled, steps=method.seed_steps, init="seed", fraction=method.seed_fraction)
    if method.experts == "seed-only":
        return Needed(seed=seed)
    extra = 0 if method.start == "seeded" else method.seed_steps
    steps = own + (extra if method.budget == "per-expert" else round(extra / count))

    parent = None if seed is None else short_id(seed)

    def expert(task: str, shuffled: bool) -> ExpertSpec:
        init = task if method.start == "random-init" else "seed"
        return _one(spec, (task,), steps=steps, init=init, parent=parent, shuffled=shuffled)

    order = torch.randperm(count, generator=generator(derive_seed(spec.seed, "ineffective"))).tolist()
    noisy = [data.tasks[index] for index in sorted(order[: method.ineffective])]
    return Needed(
        seed=seed,
        experts={task: expert(task, False) for task in data.tasks},
        ineffective={task: expert(task, True) for task in noisy},
    )


def _one(
    spec: RunSpec,
    tasks: Sequence[str],
    *,
    steps: int,
    init: str,
    fraction: float = 1.0,
    parent: str | None = None,
    shuffled: bool = False,
) -> ExpertSpec:
    method, data = parts(spec)
    return ExpertSpec(
        model=spec.model,
        tasks=tuple(tasks),
        task_sha256={name: data.task_sha256[name] for name in tasks if name in data.task_sha256},
        train=data.train,
        shares={name: data.shares[name] for name in tasks if name in data.shares},
        split_seed=data.split_seed,
        prompt=data.prompt,
        max_length=spec.schedule.max_length,
        fraction=fraction,
        shuffled=shuffled,
        parent=parent,
        init=init,
        steps=steps,
        batch_size=spec.schedule.batch_size,
        lr=method.lr,
        rank=method.rank,
        alpha=method.alpha,
        weight_decay=method.weight_decay,
        max_grad_norm=method.max_grad_norm,
        seed=spec.seed,
        threads=spec.threads,
        device=spec.device,
        deterministic=spec.deterministic,
    )
