from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from optaware.records import Episodes, GradientHarmonization
from optaware.train.methods.gradient_harmonization._inner import evaluate_tasks
from optaware.train.methods.gradient_harmonization._network import Network, Params
from optaware.train.methods.gradient_harmonization._tasks import draw_tasks, images_of, task_seeds

__all__ = ["EpisodeScores", "score_episodes"]

_AT_ONCE = 50


@dataclass(frozen=True)
class EpisodeScores:
    """Accuracy (0 to 1) and loss of each episode."""

    accuracies: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def accuracy(self) -> float:
        """Mean over the episodes."""
        return math.fsum(self.accuracies) / len(self.accuracies)

    @property
    def loss(self) -> float:
        """Mean over the episodes."""
        return math.fsum(self.losses) / len(self.losses)

    @property
    def half_width(self) -> float:
        """Half the 95 % interval of the mean: 1.96 s/√n with s the standard deviation over episodes, as published."""
        count, mean = len(self.accuracies), self.accuracy
        if count < 2:
            return math.inf
        variance = math.fsum((value - mean) ** 2 for value in self.accuracies) / (count - 1)
        return 1.96 * math.sqrt(variance / count)


def score_episodes(
    network: Network,
    params: Params,
    images: Tensor,
    data: Episodes,
    method: GradientHarmonization,
    *,
    purpose: str,
    shots: int,
    episodes: int,
) -> EpisodeScores:
    """Adapt to each episode and score it.

    The episodes depend on `split_seed`, purpose and shots alone: they are the same for every run.

    Args:
        network: The classifier.
        params: θ.
        images: uint8 images of the classes that are asked about.
        data: Size of a task.
        method: The inner loop; `test_inner_steps` are taken.
        purpose: `validation` or `test`.
        shots: Support images per class.
        episodes: How many.
    """
    score = evaluate_tasks(network, method.inner, lr=method.inner_lr, steps=method.test_inner_steps)
    seeds = task_seeds(data.split_seed, purpose, shots, episodes)
    accuracies: list[float] = []
    losses: list[float] = []
    for start in range(0, episodes, _AT_ONCE):
        batch = draw_tasks(
            seeds[start : start + _AT_ONCE],
            available=(images.shape[0], images.shape[1]),
            ways=data.ways,
            shots=shots,
            queries=data.queries,
            mix=data.mix,
            training=False,
        )
        classes, drawings, inverted, labels = (tensor.to(images.device) for tensor in batch.tensors())
        support, support_labels, query = images_of(images, classes, drawings, inverted, shots)
        with torch.no_grad():
            found_losses, found = score(params, support, support_labels, query, labels)
        accuracies += found.tolist()
        losses += found_losses.tolist()
    return EpisodeScores(tuple(accuracies), tuple(losses))
