from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Candidate", "History", "Proposal", "Proposed", "Proposer", "Trial", "Vocabulary"]


@dataclass(frozen=True)
class Candidate:
    """A text that the trajectory passed by, judged on the fitness rows.

    Attributes:
        ids: Its tokens, n of them.
        text: The same as text.
        loss: Fitness loss as a discrete prompt; None when it is not finite.
        accuracy: Fitness accuracy, 0 to 1.
    """

    ids: tuple[int, ...]
    text: str
    loss: float | None
    accuracy: float


@dataclass(frozen=True, eq=False)
class Proposal:
    """A place to restart from: a text, the tokens of one, or a point of a searched subspace. Exactly one is set.

    Attributes:
        text: A template in words.
        ids: n tokens.
        prompt: θ itself, `[n, d]`.
        point: Coordinates of `prompt` in the subspace, for searchers.
    """

    text: str | None = None
    ids: tuple[int, ...] | None = None
    prompt: Tensor | None = None
    point: tuple[float, ...] | None = None


@dataclass(frozen=True, eq=False)
class Trial:
    """A proposal of this round and what became of it on the fitness rows."""

    proposal: Proposal
    ids: tuple[int, ...] | None
    loss: float | None
    accuracy: float


class Vocabulary(Protocol):
    """What proposers may know of the model."""

    @property
    def length(self) -> int:
        """n, tokens of a prompt."""
        ...

    @property
    def spread(self) -> float:
        """Standard deviation of the embeddings' entries."""
        ...

    @property
    def allowed(self) -> Tensor:
        """Ids of tokens of visible text."""
        ...


@dataclass(frozen=True)
class History:
    """All that a proposer is told.

    Attributes:
        task: Name of the task.
        description: What the task is.
        labels: The answers, as text.
        manual: A prompt that a person would write.
        seed: The run's seed.
        round: From 0.
        candidates: Texts of the trajectory since the last restart, from the worst to the best.
        current: θ as it stands, `[n, d]`.
        trials: What was proposed earlier in this round, in order.
    """

    task: str
    description: str
    labels: tuple[str, ...]
    manual: str
    seed: int
    round: int
    candidates: tuple[Candidate, ...]
    current: Tensor
    trials: tuple[Trial, ...] = ()


@dataclass(frozen=True)
class Proposed:
    """An answer: usable proposals (at most k), and what could not be used, in words."""

    proposals: tuple[Proposal, ...]
    unusable: tuple[str, ...] = ()


class Proposer(Protocol):
    """Proposes restarts. It keeps no state: the same history gives the same answer (an LLM's up to its sampling)."""

    @property
    def asks(self) -> int:
        """How often it wants to be asked in a round."""
        ...

    def propose(self, history: History, k: int) -> Proposed:
        """At most k proposals; none is no error, the round then goes on without a restart and is counted."""
        ...


def best_first(items: Sequence[Trial | Candidate]) -> list[Trial | Candidate]:
    """By loss, those without a finite one last."""
    return sorted(items, key=lambda item: float("inf") if item.loss is None else item.loss)
