"""Low-rank directions that act inside the forward pass, so that a step never passes over the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from optaware.train import noise
from optaware.train._seeds import derive_seed
from optaware.train.directions._bank import MatrixBank, VectorBank, grouped
from optaware.train.directions._frame import Copies, active_names, seen_by_row
from optaware.train.directions._inputs import swap_uncalled, trace
from optaware.train.directions._matrix import MatrixFactors
from optaware.train.directions._sites import find_sites
from optaware.train.directions._vector import VectorCopy, VectorModule

__all__ = ["LowRank"]


class LowRank:
    """`z = U·Vᵀ/√r` for every matrix and dense Gaussian z for every vector; U is drawn per probe, V every few steps.

    A linear module's output gets `(x·V)·(A + scale·U)ᵀ` added, where `A·Vᵀ` is all that was learnt since V was drawn,
    kept in fp32. Probing and moving therefore cost a few thousand additions per matrix and write no weight; the weights
    are written when V is redrawn and before an evaluation, by a merge that carries its rounding error on.

    For one matrix of shape (m, n) and a linear loss, `E[g z] = ∇L` and, over U and V,
    `E‖g z‖² = (mn + 2 + 2(m + n + 1)/r)·‖∇L‖²`: for r → ∞ that of a dense Gaussian z, `mn + 2`.

    Symbols: r is `rank`; ν, the steps between draws of V, is `refresh_every`.

    Source: LOZO (Chen et al., ICLR 2025, Algorithm 1).
    Differs from the paper: the perturbation is a side product of the forward pass instead of a write to the weights;
    embeddings are low-rank too; norm scales and biases are perturbed in fp32. A matrix that no linear, Conv1D or
    embedding module applies (stacked experts, learnt positions of OPT) is exchanged for a perturbed copy while a probe
    lasts; one of more than two dimensions is taken as the table of its last dimension and all others.

    Args:
        model: Its parameters with `requires_grad` are the ones moved. Tied matrices share one pair of factors.
        rank: Rank r of the perturbation of each matrix.
        refresh_every: Steps ν between draws of V.
        seed: The run's seed: V is a function of it, of the parameter's name and of `(step − 1) // refresh_every`.
        layers: Blocks drawn at random at each step, the only ones that are perturbed; None: all parameters are.
        precision: How merges into half-precision weights survive rounding; see `Dense`.
        host_residuals: Keep the residuals (or master copies) of the merges in the host's memory, so that the device
            holds the factors alone beside the weights; each merge moves them there and back.

    Raises:
        ModelError: No trainable parameter, or parameters without floating-point numbers.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        rank: int,
        refresh_every: int,
        seed: int,
        layers: int | None = None,
        precision: Literal["auto", "residual", "stochastic", "master", "none"] = "auto",
        host_residuals: bool = False,
    ) -> None:
        known, vectors, others = find_sites(model)
        matrices = [*known, *others]
        self._copies = Copies()
        self._layers = layers
        self._active: frozenset[str] | None = None
        self._matrix_banks = [MatrixBank(sites, rank) for sites in grouped(matrices)]
        self._vector_banks = [VectorBank(sites) for sites in grouped(vectors)]
        self._banks: list[MatrixBank | VectorBank] = [*self._matrix_banks, *self._vector_banks]
        self.matrices = [
            MatrixFactors(site, bank, span, self._copies, "residual" if precision == "auto" else precision)
            for bank in self._matrix_banks
            for site, span in zip(bank.sites, bank.spans, strict=True)
        ]
        self.vectors = [
            VectorCopy(site, bank, span)
            for bank in self._vector_banks
            for site, span in zip(bank.sites, bank.spans, strict=True)
        ]
        for matrix in self.matrices:
            if host_residuals and matrix.residual is not None:
                matrix.residual = matrix.residual.cpu()
        self._refresh_every = refresh_every
        self._seed = seed
        self._period: int | None = None
        self._step = 0
        self._drawn: int | None = None
        self._pending = 1.0  # decay that the stored matrices have not had yet
        self._parts: list[MatrixFactors | VectorCopy] = [*self.matrices, *self.vectors]
        self._by_name = {part.site.name: part for part in self._parts}
        self._hooks = {part.site.name: part.attach(self._is_on) for part in self._parts}
        self._exchanged = [matrix for matrix in self.matrices if not matrix.site.users]
        norms = {id(site.module): site.module for site in vectors if site.kind == "module"}
        self._undo = [
            VectorModule.share(module, [each for each in self.vectors if each.site.module is module], self._copies)
            for module in norms.values()
        ]

    def _is_on(self) -> bool:
        return self._copies.on

    @property
    def supports_batch(self) -> bool:
        """Whether all trained parameters act in modules that can tell probes apart."""
        by_row = seen_by_row(self._by_name)
        return by_row and not self._exchanged and not any(each.site.kind == "swap" for each in self.vectors)

    def prepare(self, run: Callable[[], object]) -> None:
        """Let the model run once, unperturbed: which matrices share an input, and which parameters are used otherwise
        than by a call of their module, and are therefore exchanged."""
        missed: list[str] = []
        swap_uncalled(self.vectors, lambda: missed.extend(trace(self.matrices, run)))
        for name in missed:
            for hook in self._hooks.pop(name):
                hook.remove()
        self._exchanged += [matrix for matrix in self.matrices if matrix.site.name in missed]

    def begin(self, step: int) -> None:
        """Redraw V when `step` begins a new period; what was learnt is merged into the weights first."""
        period = (step - 1) // self._refresh_every
        if period != self._period:
            if self._period is not None:
                self.settle()
            self._draw_right(period)
        active = active_names([part.site.name for part in self._parts], self._layers, self._seed, step)
        if active != self._active:
            self._active, self._drawn = active, None
        self._step = step

    def _draw_right(self, period: int) -> None:
        seed = derive_seed(self._seed, "right factors", period)
        numbers = [each for bank in self._matrix_banks for each in bank.rights(seed)]
        for matrix, own in zip(self.matrices, numbers, strict=True):
            matrix.take_right(own)
        self._period = period

    def _draw(self, seed: int) -> None:
        if seed == self._drawn:
            return
        for bank in self._banks:
            bank.draw(seed, active=self._active)
        self._drawn = seed

    def at(self, seed: int, scale: float) -> AbstractContextManager[None]:
        """Inside, the model computes with `θ + scale·z(seed)`; no stored weight is written."""
        return self.batched([(seed, scale)])

    @contextmanager
    def batched(self, probes: Sequence[tuple[int, float]]) -> Iterator[None]:
        """Inside, rows p·B … (p + 1)·B − 1 of a batch of P·B are computed with `θ + scale_p·z(seed_p)`.

        The products with V are those of one larger batch; each probe has its own left factors.
        """
        for bank in self._matrix_banks:
            bank.divide(len(probes))
        values: list[list[Tensor]] = []
        for index, (seed, scale) in enumerate(probes):
            self._draw(seed)
            for bank in self._matrix_banks:
                bank.show(scale, index)
            values.append([value for bank in self._vector_banks for value in bank.at(scale)])
        stored = [(matrix.site.parameter, matrix.site.parameter.data) for matrix in self._exchanged]
        try:
            self._copies.count = len(probes)
            self._copies.on = True
            for matrix in self._exchanged:
                matrix.site.parameter.data = matrix.written()
            for index, vector in enumerate(self.vectors):
                vector.put_in([each[index] for each in values])
            yield
        finally:
            self._copies.on = False
            self._copies.count = 1
            for parameter, data in stored:
                parameter.data = data
            for vector in self.vectors:
                vector.take_out()

    def written_out(self, seed: int) -> dict[str, Tensor]:
        """z(seed) as dense tensors by parameter name, with V as it now is: for checks against other implementations."""
        self._draw(seed)
        dense = {matrix.site.name: matrix.product() for matrix in self.matrices}
        return dense | {vector.site.name: vector.drawn.clone() for vector in self.vectors}

    def move(self, seed: int, amount: float) -> None:
        """`θ ← θ + amount·z(seed)`, in the fp32 factors."""
        self._draw(seed)
        for bank in self._banks:
            bank.move(amount)

    @property
    def basis(self) -> int:
        """The period of V."""
        return -1 if self._period is None else self._period

    def coordinates(self, seed: int, name: str) -> Tensor:
        """Uᵀ (r, m) of a matrix, z of a vector."""
        self._draw(seed)
        return self._by_name[name].drawn

    def shift(self, name: str, change: Tensor) -> None:
        """`Aᵀ ← Aᵀ + change` for a matrix, `v ← v + change` for a vector."""
        self._by_name[name].learnt.add_(change)

    def decay(self, factor: float) -> None:
        """`θ ← factor·θ` for matrices: at once in the factors, in the stored weights with the next merge."""
        self._pending *= factor
        for bank in self._matrix_banks:
            bank.learnt.mul_(factor)

    def settle(self) -> None:
        """Merge all that was learnt into the stored weights."""
        for matrix in self.matrices:
            matrix.merge(
                self._pending, noise.noise_key(derive_seed(self._seed, "rounding", self._step), matrix.site.name)
            )
        for vector in self.vectors:
            vector.merge()
        self._pending = 1.0

    def weights(self) -> dict[str, Tensor]:
        """The stored weights."""
        return {part.site.name: part.site.parameter.data for part in self._parts}

    def state(self) -> dict[str, Tensor]:
        """The factors A, the residuals of the last merge, the fp32 vectors and the pending decay."""
        state = {f"learnt.{part.site.name}": part.learnt for part in self._parts}
        for matrix in self.matrices:
            if matrix.residual is not None:
                state[f"residual.{matrix.site.name}"] = matrix.residual
        state["pending"] = torch.tensor([self._pending], dtype=torch.float64)
        state["step"] = torch.tensor([self._step])
        state["period"] = torch.tensor([-1 if self._period is None else self._period])
        return state

    def load(self, weights: dict[str, Tensor], state: dict[str, Tensor]) -> None:
        """Take up where `weights()` and `state()` were taken."""
        for name, stored in self.weights().items():
            stored.copy_(weights[name])
        if (period := int(state["period"].item())) >= 0:
            self._draw_right(period)
        for part in self._parts:
            part.learnt.copy_(state[f"learnt.{part.site.name}"])
        for matrix in self.matrices:
            if matrix.residual is not None:
                matrix.residual.copy_(state[f"residual.{matrix.site.name}"])
        self._pending = float(state["pending"].item())
        self._step = int(state["step"].item())

    def close(self) -> None:
        """Take the hooks off the model."""
        for hooks in self._hooks.values():
            for hook in hooks:
                hook.remove()
        for undo in self._undo:
            undo()
        self._hooks, self._undo = {}, []
