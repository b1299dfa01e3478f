"""Two-point descent whose whole step runs on the GPU: both signs in one batch, captured as CUDA graphs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from optaware.train._captures import Captures
from optaware.train._room import Room
from optaware.train._static_batch import Batch
from optaware.train._types import StepResult
from optaware.train.gpu._dense import Dense
from optaware.train.gpu._forward import Forward
from optaware.train.gpu._frame import Frame
from optaware.train.gpu._lowrank import LowRankSides
from optaware.train.gpu._reading import read_decoder
from optaware.train.noise import noise_key
from optaware.train.schedules import Settings
from optaware.train.zeroth import probe_seeds

if TYPE_CHECKING:
    from optaware.models import EncodedExample

__all__ = ["FusedLearner"]


class FusedLearner:
    """`θ ← (1 − lr·wd)·θ − lr·mean_j g_j·z_j`, `g_j = (L(θ + eps·z_j) − L(θ − eps·z_j)) / (2·eps)`, all on the device.

    Both signs go through one forward pass of twice the rows (`_forward.py`); losses, coefficients, the check for values
    that are not finite and the update stay on the device, and the host reads three numbers a query when the step is
    over. For each shape of batch the step is captured as a CUDA graph; seeds, scales and tokens lie at fixed addresses
    that each step fills. Weights are written by the update alone.

    Noise is that of `optaware.train.noise`, so steps equal those of the other engines to rounding.

    Args:
        model: A Llama-like causal language model of Hugging Face, all of it trained, on one device.
        objective: "options" or "language-model".
        direction: "gaussian", "rademacher" or "low-rank".
        settings: Learning rate, perturbation scale and queries by step.
        queries: Most queries of a step.
        rank: Of a low-rank perturbation.
        refresh_every: Steps between its right factors.
        weight_decay: Decay per unit of learning rate, on matrices.
        clip: Largest size of a coefficient; None: any.
        rounding: "stochastic" (no memory), "residual" (2 bytes a weight) or "none".
        host_residuals: For low-rank: keep the residuals in the host's memory; see `LowRankSides`.
        seed: The run's seed.
        graphs: Whether to capture CUDA graphs; by default on CUDA devices.

    Raises:
        NotSupported: The model is not one that `_reading.py` knows, or the host has no memory for the residuals.
    """

    fused = True

    def __init__(
        self,
        model: nn.Module,
        objective: Literal["options", "language-model"],
        *,
        direction: Literal["gaussian", "rademacher", "low-rank"],
        settings: Callable[[int], Settings],
        queries: int = 1,
        rank: int = 8,
        refresh_every: int = 10,
        weight_decay: float = 0.0,
        clip: float | None = None,
        rounding: str = "stochastic",
        seed: int = 0,
        host_residuals: bool = False,
        graphs: bool | None = None,
    ) -> None:
        decoder = read_decoder(model)
        device = next(iter(decoder.parameters.values())).device
        self.model, self.objective, self.seed = model, objective, seed
        self.queries, self.weight_decay, self.clip = queries, weight_decay, clip
        self.window = decoder.window
        self._settings = settings
        self.frame = Frame(list(decoder.parameters), queries, clip is not None, device)
        self.weights_of: Dense | LowRankSides
        if direction == "low-rank":
            self.weights_of = LowRankSides(
                decoder,
                self.frame,
                rank=rank,
                refresh_every=refresh_every,
                seed=seed,
                rounding=rounding,
                host_residuals=host_residuals,
            )
        else:
            self.weights_of = Dense(decoder, self.frame, rounding, direction == "rademacher")
        self._forward = Forward(decoder, self.weights_of)
        self.device = device
        self.captures = Captures(device, graphs)
        self._ready: tuple[int, Tensor] | None = None
        self.room = Room()
        self._moving = False

    # -- one step ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, step: int, parts: Sequence[Sequence[EncodedExample]]) -> StepResult:
        """Probe and move; a step without a finite probe moves nothing. The host waits once, at the end."""
        now = self._settings(step)
        self.room.within(parts, partial(self._probe_and_move, step, now), self._may_begin_again)
        self._ready = self._keys(step + 1)  # drawn up while the device works
        self.weights_of.foresee(step + 1)
        found = self.frame.results.tolist()
        losses = [value for value in found[: 2 * now.queries] if math.isfinite(value)]
        coefficients = tuple(found[2 * self.queries : 2 * self.queries + now.queries])
        moved = any(map(math.isfinite, coefficients))
        self._decayed(moved, now.lr)
        mean = sum(losses) / len(losses) if losses else None
        return StepResult(mean, 2 * now.queries, not moved, coefficients, kept=coefficients, lr=now.lr)

    @torch.no_grad()
    def repeat(self, step: int, kept: Sequence[float]) -> StepResult:
        """Make an update again from its coefficients, without evaluating a loss: the same kernels, the same bits."""
        now = self._settings(step)
        self._begin(step, now)
        usable = any(map(math.isfinite, kept))
        self.frame.found[: len(kept)].copy_(torch.tensor(kept))
        self.frame.share(len(kept))
        self.weights_of.move(len(kept))
        self._decayed(usable, now.lr)
        return StepResult(None, 2 * now.queries, not usable, tuple(kept), kept=tuple(kept), lr=now.lr)

    @torch.no_grad()
    def probe_losses(
        self, step: int, parts: Sequence[Sequence[EncodedExample]], eps: float | None = None
    ) -> list[float]:
        """Both losses of each query of a step, at the weights as they are; nothing is moved.

        Args:
            step: Which directions.
            parts: The batch.
            eps: Perturbation scale; None: that of the step.
        """
        now = self._settings(step)
        self._begin(step, now if eps is None else replace(now, eps=eps))
        self._probe_all(now.queries, parts)
        return self.frame.results[: 2 * now.queries].tolist()

    def _probe_and_move(self, step: int, now: Settings, parts: Sequence[Sequence[EncodedExample]]) -> None:
        self._moving = True  # a new period of V merges what was learnt into the weights
        self._begin(step, now)
        self._moving = False
        if now.queries == 1 and len(parts) == 1:
            self._whole(parts[0])
        else:
            self._probe_all(now.queries, parts)
            self._update(now.queries)

    def _may_begin_again(self) -> bool:
        """After "out of memory": free what the graphs hold; a step that was writing weights cannot be made again."""
        self.forget()
        return not self._moving

    def _probe_all(self, queries: int, parts: Sequence[Sequence[EncodedExample]]) -> None:
        size = sum(len(part) for part in parts)
        for query in range(queries):
            self.frame.choose(query)
            for part in parts:
                batch = self.captures.send(part, self.objective, len(part) / size)
                self.captures.run(("probe", batch.shape), partial(self._add_losses, batch))

    def _keys(self, step: int) -> tuple[int, Tensor]:
        seeds = probe_seeds(self.seed, step, self._settings(step).queries)
        return step, self.frame.host_keys([[noise_key(seed, name) for name in self.frame.names] for seed in seeds])

    def _begin(self, step: int, now: Settings) -> None:
        if self._ready is None or self._ready[0] != step:
            self._ready = self._keys(step)
        self.weights_of.refresh(step)
        self.frame.begin(self._ready[1], now.lr, now.eps, self.clip, 1.0 - now.lr * self.weight_decay)

    def _decayed(self, moved: bool, lr: float) -> None:
        if moved and isinstance(self.weights_of, LowRankSides):
            self.weights_of.pending *= 1.0 - lr * self.weight_decay

    def _add_losses(self, batch: Batch) -> None:
        losses = self._forward.losses(batch).float()
        self.frame.losses.index_add_(0, self.frame.query.long(), losses[None])

    def _whole(self, part: Sequence[EncodedExample]) -> None:
        """One query, one part: the step is one graph."""
        self.frame.choose(0)
        batch = self.captures.send(part, self.objective, 1.0)

        def run() -> None:
            self._add_losses(batch)
            self.frame.close(1)
            self._moving = True
            self.weights_of.move(1)

        self.captures.run(("step", batch.shape), run)

    def _update(self, queries: int) -> None:
        def run() -> None:
            self.frame.close(queries)
            self._moving = True
            self.weights_of.move(queries)

        self.captures.run(("update", queries), run)

    def forget(self) -> None:
        """Let go of all graphs and the memory that they hold."""
        self.captures.forget()

    # -- the rest of a learner -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def settle(self) -> None:
        """Bring all moves into the stored weights."""
        self.weights_of.settle()

    def weights(self) -> dict[str, Tensor]:
        """The stored weights."""
        return self.weights_of.weights()

    def state(self) -> dict[str, Tensor]:
        """Everything else that the next step depends on."""
        return self.weights_of.state()

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor], state: dict[str, Tensor]) -> None:
        """Take up saved weights and state."""
        for name, stored in self.weights().items():
            stored.copy_(weights[name])
        self.weights_of.load(state)

    @contextmanager
    def training(self) -> Iterator[None]:
        """Steps are made in evaluation mode."""
        self.model.eval()
        yield

    def close(self) -> None:
        """Let go of the graphs; the model has no hooks. Memory of the host is given back after this only."""
        self.forget()
        if isinstance(self.weights_of, LowRankSides):
            self.weights_of.wait()
