"""The part that momentum and Adam share: they choose the form of their memory when they meet their direction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from optaware.train.directions import Direction
from optaware.train.updates._moments import Replayed, Stored, is_compact
from optaware.train.updates._rule import Rule

__all__ = ["Form", "Remembering"]

Form = Literal["auto", "stored", "replayed"]


class Remembering(Rule):
    """A rule over moments.

    Args:
        lr: Learning rate.
        weight_decay: Share of the matrices that is taken off per unit of learning rate.
        clip: Largest size of a coefficient g; None: any.
        betas: Decay of each moment per step.
        form: `stored` keeps the moments, `replayed` makes them again from the last seeds; `auto` stores them where
            coordinates are small (low-rank directions) and replays them otherwise.
        window: Steps that are replayed.
    """

    def __init__(
        self,
        lr: float,
        weight_decay: float,
        clip: float | None,
        *,
        betas: Sequence[float],
        form: Form,
        window: int,
    ) -> None:
        super().__init__(lr, weight_decay, clip)
        self.betas, self.form, self.window = tuple(betas), form, window
        self._chosen: Stored | Replayed | None = None
        self._saved: dict[str, Tensor] | None = None

    def moments(self, direction: Direction) -> Stored | Replayed:
        """The memory, in the form that suits the direction."""
        if self._chosen is None:
            stored = self.form == "stored" or (self.form == "auto" and is_compact(direction))
            self._chosen = Stored(self.betas) if stored else Replayed(self.betas, self.window)
            if self._saved is not None:
                self._chosen.load(self._saved, direction)
                self._saved = None
        return self._chosen

    def bytes_per_parameter(self, direction: Direction) -> float:
        """Bytes of stored moments over the parameters moved; 0 in the replayed form."""
        return self.moments(direction).bytes_per_parameter(direction)

    def state(self) -> dict[str, Tensor]:
        """The moments, or the seeds and weights they are made from."""
        if self._chosen is None:
            return dict(self._saved or {})
        return self._chosen.state()

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up what `state()` gave; it goes to its devices at the next step."""
        self._chosen, self._saved = None, dict(state) if state else None
