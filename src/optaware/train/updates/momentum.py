"""Heavy-ball momentum."""

from __future__ import annotations

from optaware.train.directions import Direction
from optaware.train.updates._moments import Replayed
from optaware.train.updates._remembering import Form, Remembering
from optaware.train.updates._rule import Weighted

__all__ = ["Momentum"]


class Momentum(Remembering):
    """`m ← β·m + ĝ`, `θ ← (1 − lr·weight_decay)·θ − lr·m`.

    For low-rank directions m has the size of the factors and starts anew with each V, so a period should be longer
    than 1/(1 − β) steps to gain by it. For dense ones m is a sum over the last `window` steps and is never held: θ is
    moved along each of their directions again, which costs `window` noise passes a step.

    Source: Polyak 1964; for low-rank directions LOZO-M (Chen et al., ICLR 2025, section 4).
    Differs from the paper: LOZO-M projects the old m on the new V; as random subspaces have next to nothing in common,
    it is dropped here.

    Args:
        lr: Learning rate.
        weight_decay: Share of the matrices that is taken off per unit of learning rate.
        clip: Largest size of a coefficient g; None: any.
        beta: Decay of m per step.
        form: `stored`, `replayed` or `auto` (see `Remembering`).
        window: Steps that are replayed.
    """

    def __init__(
        self,
        lr: float,
        weight_decay: float = 0.0,
        clip: float | None = None,
        *,
        beta: float = 0.9,
        form: Form = "auto",
        window: int = 50,
    ) -> None:
        super().__init__(lr, weight_decay, clip, betas=(beta,), form=form, window=window)

    def _move(self, direction: Direction, weighted: Weighted, lr: float) -> None:
        moments = self.moments(direction)
        moments.advance(direction, weighted)
        if isinstance(moments, Replayed):
            for seed, weight in moments.summed():
                direction.move(seed, -lr * weight)
            return
        for name in direction.weights():
            ((momentum, _),) = moments.of(direction, name)
            direction.shift(name, momentum.mul_(-lr))
