from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from torch import Tensor

__all__ = ["Direction"]


class Direction(Protocol):
    """How z is drawn and applied. z(seed) is a function of the seed and of each parameter's name, never of order."""

    def prepare(self, run: Callable[[], object]) -> None:
        """Look at one unperturbed forward pass, which `run` makes. Called once, before the first step of a process."""
        ...

    def begin(self, step: int) -> None:
        """Get ready for the probes of `step`; whatever is redrawn from time to time is redrawn here."""
        ...

    def at(self, seed: int, scale: float) -> AbstractContextManager[None]:
        """Inside, the model computes with `θ + scale·z(seed)`; afterwards every weight is as it was, to the bit."""
        ...

    @property
    def supports_batch(self) -> bool:
        """Whether `batched` can be used."""
        ...

    def batched(self, probes: Sequence[tuple[int, float]]) -> AbstractContextManager[None]:
        """Inside, one forward evaluates several probes: every input of the model must be given len(probes) times over.

        With P probes `(seed, scale)` and a batch of B rows, the model gets P·B rows, `inputs.repeat(P, 1)`; rows
        p·B … (p + 1)·B − 1 are computed with `θ + scale_p·z(seed_p)`. A scale of 0 is the unperturbed model. Probes
        that share a seed share the draw, so put the two signs of a direction next to each other.
        """
        ...

    def move(self, seed: int, amount: float) -> None:
        """`θ ← θ + amount·z(seed)`.

        All moves between two calls of `begin` (or `settle`) may be summed before they are rounded to the stored dtype.
        """
        ...

    # Updates that remember more than one scalar a probe (momentum, Adam) work in the coordinates that z is drawn in:
    # z itself for dense directions, U of z = U·Vᵀ for low-rank ones, so that what they remember is as small as U.

    @property
    def basis(self) -> int:
        """Changes when coordinates get another meaning (a new V); what was remembered in the old ones is void then."""
        ...

    def coordinates(self, seed: int, name: str) -> Tensor:
        """z(seed) of one parameter (a key of `weights()`), in coordinates, fp32 or wider; not to be written to.

        Valid until the next call of any method of the direction.
        """
        ...

    def shift(self, name: str, change: Tensor) -> None:
        """`θ ← θ + change` for one parameter, `change` in coordinates and in their dtype."""
        ...

    def decay(self, factor: float) -> None:
        """`θ ← factor·θ` for every matrix; vectors (biases, norm scales) are left alone."""
        ...

    def settle(self) -> None:
        """Bring all moves into the stored weights."""
        ...

    def weights(self) -> dict[str, Tensor]:
        """The stored weights that are moved, by name (not copies)."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Everything else that θ and z depend on, by name."""
        ...

    def load(self, weights: dict[str, Tensor], state: dict[str, Tensor]) -> None:
        """Take up where `weights()` and `state()` were taken."""
        ...

    def close(self) -> None:
        """Leave the model as a bare model: no hooks."""
        ...
