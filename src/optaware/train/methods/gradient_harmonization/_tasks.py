from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from optaware.train._seeds import derive_seed, generator

__all__ = ["TaskBatch", "draw_tasks", "images_of", "task_seeds"]


@dataclass(frozen=True)
class TaskBatch:
    """Which images the tasks of one batch show; small integers, so that they can be sent to a device at every step.

    Attributes:
        classes: [t, ways].
        drawings: [t, ways, shots + queries].
        inverted: [t], whether the task shows negatives.
        query_labels: [t, ways·queries]; 0…ways−1 in turn, or random where the task is corrupted.
    """

    classes: Tensor
    drawings: Tensor
    inverted: Tensor
    query_labels: Tensor

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The four tensors."""
        return self.classes, self.drawings, self.inverted, self.query_labels


def draw_tasks(
    seeds: Sequence[int],
    *,
    available: tuple[int, int],
    ways: int,
    shots: int,
    queries: int,
    mix: str = "none",
    training: bool = True,
) -> TaskBatch:
    """Draw one task per seed; a task is a function of its seed alone.

    Args:
        seeds: One per task.
        available: Classes, and drawings of each.
        ways: Classes of a task.
        shots: Support images per class.
        queries: Query images per class.
        mix: `none`, `inverted` or `corrupted` (see `Episodes.mix`).
        training: Corruption is for training tasks only.
    """
    total, drawings = available
    batch: list[tuple[Tensor, ...]] = []
    clean = torch.arange(ways).repeat_interleave(queries)
    for seed in seeds:
        source = generator(seed)
        classes = torch.randperm(total, generator=source)[:ways]
        order = torch.rand(ways, drawings, generator=source).argsort(1)[:, : shots + queries]
        odd = bool(torch.rand((), generator=source) < 0.5)
        labels = clean
        if mix == "corrupted" and odd and training:
            labels = torch.randint(ways, clean.shape, generator=source)
        batch.append((classes, order, torch.tensor(mix == "inverted" and odd), labels))
    classes, order, inverted, labels = (torch.stack(items) for items in zip(*batch, strict=True))
    return TaskBatch(classes, order, inverted, labels)


def images_of(
    images: Tensor, classes: Tensor, drawings: Tensor, inverted: Tensor, shots: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Support images [t, ways·shots, h, w, c] in 0…1, their labels [t, ways·shots], and query images.

    Args:
        images: uint8 [classes, drawings, h, w, c].
        classes: [t, ways].
        drawings: [t, ways, shots + queries].
        inverted: [t].
        shots: Support images per class.
    """
    tasks, ways = classes.shape
    shown = images[classes.unsqueeze(-1), drawings].float() / 255
    shown = torch.where(inverted.view(-1, 1, 1, 1, 1, 1), 1 - shown, shown)
    support, query = shown[:, :, :shots].flatten(1, 2), shown[:, :, shots:].flatten(1, 2)
    labels = torch.arange(ways, device=images.device).repeat_interleave(shots).expand(tasks, -1)
    return support, labels, query


def task_seeds(seed: int, purpose: str, iteration: int, count: int) -> list[int]:
    """Seeds of the tasks of one batch, derived from (seed, purpose, iteration, task)."""
    return [derive_seed(seed, purpose, iteration, index) >> 1 for index in range(count)]
