"""Few-shot episodes: where the classes come from, and what one task asks."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from optaware.records._base import Record

__all__ = ["Episodes"]


class Episodes(Record):
    """Tasks for meta-learning, drawn from classes of images or from families of functions.

    Attributes:
        source: `omniglot`, or the path of an image folder or of a tensor file (`.npz`, `.safetensors`) of your own.
        mix: What makes the tasks unlike each other: `none`; `inverted` (half of the tasks, in training and test, show
            their images as negatives); `corrupted` (half of the training tasks have random query labels; the test tasks
            are clean).
        ways: Classes of a task.
        shots: Labelled examples per class that a task adapts on.
        queries: Examples per class that the adapted weights are judged on.
        train_classes: Classes for training; the rest are test classes. None: 1200 of Omniglot's 1623, as in the
            literature; three quarters of your own.
        validation_classes: How many of the training classes are kept back to choose settings on.
        rotations: Whether rotations by multiples of 90 degrees make further training classes.
        split_seed: Draws which classes are for training.
        test_shots: Numbers of shots that are tested.
        test_episodes: Test tasks per number of shots.
        validation_episodes: Validation tasks at each evaluation.
    """

    kind: Literal["episodes"] = "episodes"
    source: str = "omniglot"
    source_sha256: str | None = None
    """Content hash of the data, so that other data is another run; None: not checked."""
    mix: Literal["none", "inverted", "corrupted"] = "none"
    ways: Annotated[int, Field(ge=2)] = 5
    shots: Annotated[int, Field(ge=1)] = 1
    queries: Annotated[int, Field(ge=1)] = 15
    train_classes: Annotated[int | None, Field(ge=2)] = None
    validation_classes: Annotated[int, Field(ge=0)] = 100
    rotations: bool = True
    split_seed: int = 0
    test_shots: tuple[Annotated[int, Field(ge=1)], ...] = (1, 5)
    test_episodes: Annotated[int, Field(ge=2)] = 600
    validation_episodes: Annotated[int, Field(ge=0)] = 100

    @property
    def title(self) -> str:
        """A short name: the source and the size of a task."""
        name = self.source.rstrip("/").rsplit("/", 1)[-1]
        mix = "" if self.mix == "none" else f"-{self.mix}"
        return f"{name}{mix}-{self.ways}w{self.shots}s"
