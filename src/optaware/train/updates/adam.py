"""Adam on zeroth-order estimates."""

from __future__ import annotations

from optaware.train.directions import Direction
from optaware.train.updates._remembering import Form, Remembering
from optaware.train.updates._rule import Weighted

__all__ = ["Adam"]


class Adam(Remembering):
    """`θ ← (1 − lr·weight_decay)·θ − lr·m̂/(√v̂ + eps)`, m̂ and v̂ the bias-corrected averages of ĝ and ĝ².

    For low-rank directions the averages are of the factor's entries, so that Adam acts in the subspace of the current V
    (as GaLore does with gradients): 8 bytes per entry of the factors. For dense ones they are made again, a parameter
    at a time, from the last `window` steps, which costs `window` noise passes a step (see `Replayed` for the bound on
    what is left out), or kept with `form="stored"` at 8 bytes a parameter.

    Source: Kingma and Ba, ICLR 2015; Malladi et al., NeurIPS 2023, appendix B.2.
    Differs from the paper: the second moment of the replayed form is an average over the window, not over 1/(1 − β₂)
    steps.

    Args:
        lr: Learning rate.
        weight_decay: Share of the matrices that is taken off per unit of learning rate (decoupled, as in AdamW).
        clip: Largest size of a coefficient g; None: any.
        betas: Decay of the first and of the second moment per step.
        eps: Added to the root of the second moment.
        form: `stored`, `replayed` or `auto` (see `Remembering`).
        window: Steps that are replayed.
    """

    def __init__(
        self,
        lr: float,
        weight_decay: float = 0.0,
        clip: float | None = None,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        form: Form = "auto",
        window: int = 50,
    ) -> None:
        super().__init__(lr, weight_decay, clip, betas=betas, form=form, window=window)
        self.eps = eps

    def _move(self, direction: Direction, weighted: Weighted, lr: float) -> None:
        moments = self.moments(direction)
        moments.advance(direction, weighted)
        for name in direction.weights():
            (first, first_weight), (second, second_weight) = moments.of(direction, name)
            root = second.div_(second_weight).sqrt_().add_(self.eps)
            direction.shift(name, first.div_(root).mul_(-lr / first_weight))
