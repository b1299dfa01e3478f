"""Dense directions, Gaussian or of random signs, that act inside the forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from optaware.train import noise
from optaware.train._seeds import derive_seed
from optaware.train.directions._bank import VectorBank, grouped
from optaware.train.directions._frame import Copies, active_names, seen_by_row
from optaware.train.directions._inputs import swap_uncalled, trace_modules
from optaware.train.directions._sites import MatrixSite, find_sites
from optaware.train.directions._vector import VectorCopy, VectorModule
from optaware.train.directions._weight import DenseWeight, Scratch
from optaware.train.noise import Distribution, Mask, Remedy

__all__ = ["AUTO_REMEDY", "Dense"]

AUTO_REMEDY: Remedy = "residual"
"""What `auto` stands for in half precision: see `benchmarks/precision.py` for how the remedies compare."""


class Dense:
    """z with independent entries, made again from counters whenever it is needed; no weight is written to probe.

    A module that multiplies by a matrix W makes `W + scale·z` (rounded to W's dtype) in a scratch buffer that all
    modules share, for both signs from one draw, and multiplies by that. An embedding does so for the rows that the
    batch uses. Norm scales and biases are perturbed in fp32. Parameters of other modules are exchanged for perturbed
    copies while a probe lasts. Moves are collected and made at the next `begin` or `settle`, in one pass over each
    matrix, whatever their number.

    Source: MeZO (Malladi et al., NeurIPS 2023) for regenerated noise; Sparse-MeZO (Liu et al., 2024) for the magnitude
    mask, whose threshold is found once from the weights as they come and compared with the weights of each step.
    Differs from the papers: the perturbation is applied inside the forward pass, and the mask applies to matrices only.

    Args:
        model: Its parameters with `requires_grad` are moved.
        distribution: "gaussian" or "rademacher".
        seed: The run's seed, for random masks, layers and stochastic rounding; z depends on each probe's own seed.
        precision: How moves of half-precision matrices survive rounding: error feedback in a residual of the same dtype
            (2 bytes a parameter), unbiased stochastic rounding (none), an fp32 master copy (4), or nothing.
        mask: "magnitude": the `density` share of smallest weights of each matrix; "random": a share drawn per step.
        density: Share of the entries that is left in.
        layers: Blocks drawn at random at each step, the only ones that are perturbed; None: all parameters are.
        store: Keep z in memory (fp32) for the step instead of drawing it again: the same bits, more memory.

    Raises:
        ModelError: No trainable parameter, or parameters without floating-point numbers.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        distribution: Distribution = "gaussian",
        seed: int = 0,
        precision: Literal["auto", "residual", "stochastic", "master", "none"] = "auto",
        mask: Literal["none", "magnitude", "random"] = "none",
        density: float = 1.0,
        layers: int | None = None,
        store: bool = False,
    ) -> None:
        matrices, vectors, others = find_sites(model)
        self._distribution, self._seed, self._layers = distribution, seed, layers
        self._mask, self._density = mask, density
        remedy: Remedy = AUTO_REMEDY if precision == "auto" else precision

        def weight(name: str, parameter: nn.Parameter) -> DenseWeight:
            limit = _threshold(parameter.data, density) if mask == "magnitude" else None
            made = DenseWeight(name, parameter, distribution, remedy, limit)
            made.kept = {} if store else None
            return made

        self._copies, self._scratch = Copies(), Scratch()
        sites = [(weight(site.name, site.parameter), site) for site in matrices]
        self._exchanged = [weight(site.name, site.parameter) for site in others]
        self.weights_of = {each.name: each for each in (*(made for made, _ in sites), *self._exchanged)}
        self._sites: dict[str, MatrixSite] = {site.name: site for site in matrices}
        self._undo = {made.name: made.attach(site, self._copies, self._scratch) for made, site in sites}
        self._banks = [VectorBank(part) for part in grouped(vectors)]
        self.vectors = [
            VectorCopy(site, bank, span)
            for bank in self._banks
            for site, span in zip(bank.sites, bank.spans, strict=True)
        ]
        self._vector = {each.site.name: each for each in self.vectors}
        self._hooks = [hook for each in self.vectors for hook in each.attach(self._is_on)]
        for module in {id(site.module): site.module for site in vectors if site.kind == "module"}.values():
            own = [each for each in self.vectors if each.site.module is module]
            self._undo[f"{id(module)}"] = [VectorModule.share(module, own, self._copies)]
        self._active: frozenset[str] | None = None
        self._drawn: int | None = None
        self._step = 0
        self._moves: list[tuple[int, float]] = []
        self._factor = 1.0

    def _is_on(self) -> bool:
        return self._copies.on

    @property
    def supports_batch(self) -> bool:
        """Whether all trained parameters act in modules that can tell probes apart."""
        by_row = seen_by_row((*self.weights_of, *self._vector))
        return by_row and not self._exchanged and not any(each.site.kind == "swap" for each in self.vectors)

    def prepare(self, run: Callable[[], object]) -> None:
        """See in one unperturbed forward pass which modules are called; parameters used otherwise are exchanged."""
        missed: list[str] = []
        swap_uncalled(self.vectors, lambda: missed.extend(trace_modules(list(self._sites.values()), run)))
        for name in missed:
            for undo in self._undo.pop(name):
                undo()
            self._exchanged.append(self.weights_of[name])

    def begin(self, step: int) -> None:
        """Make the moves of the step before; draw the layers and random masks of this one."""
        self._flush()
        self._step = step
        for each in self.weights_of.values():
            if each.kept is not None:
                each.kept.clear()
        active = active_names((*self.weights_of, *self._vector), self._layers, self._seed, step)
        if active != self._active:
            self._active, self._drawn = active, None
        if self._mask == "random":
            seed = derive_seed(self._seed, "mask", step)
            for name, each in self.weights_of.items():
                each.mask = Mask(2, round(65536 * self._density), noise.noise_key(seed, name))

    def _draw(self, seed: int) -> None:
        if seed != self._drawn:
            for bank in self._banks:
                bank.draw(seed, self._distribution, self._active)
            self._drawn = seed

    def _is_active(self, name: str) -> bool:
        return self._active is None or name in self._active

    def at(self, seed: int, scale: float) -> AbstractContextManager[None]:
        """Inside, the model computes with `θ + scale·z(seed)`; no stored weight is written."""
        return self.batched([(seed, scale)])

    @contextmanager
    def batched(self, probes: Sequence[tuple[int, float]]) -> Iterator[None]:
        """Inside, rows p·B … (p + 1)·B − 1 of a batch of P·B are computed with `θ + scale_p·z(seed_p)`."""
        if self._moves or self._factor != 1.0:
            self._flush()
        values = []
        for seed, scale in probes:
            self._draw(seed)
            values.append([value for bank in self._banks for value in bank.at(scale)])
        for name, each in self.weights_of.items():
            keys = [(noise.noise_key(seed, name), scale) for seed, scale in probes]
            each.probes = keys if self._is_active(name) else []
        stored = [(each, each.parameter.data) for each in self._exchanged if each.probes]
        try:
            self._copies.count, self._copies.on = len(probes), True
            for index, vector in enumerate(self.vectors):
                vector.put_in([each[index] for each in values])
            for each, data in stored:
                made = torch.empty_like(data)
                each.show(made[None])
                each.parameter.data = made
            yield
        finally:
            self._copies.count, self._copies.on = 1, False
            for vector in self.vectors:
                vector.take_out()
            for each, data in stored:
                each.parameter.data = data

    def written_out(self, seed: int) -> dict[str, Tensor]:
        """z(seed) of every parameter as this step has it, fp32: for checks against other implementations."""
        return {name: self.coordinates(seed, name).clone() for name in self.weights()}

    def move(self, seed: int, amount: float) -> None:
        """`θ ← θ + amount·z(seed)`: vectors at once, matrices with the next `begin` or `settle`."""
        self._draw(seed)
        for bank in self._banks:
            bank.move(amount)
        self._moves.append((seed, amount))

    @property
    def basis(self) -> int:
        """Always the same: coordinates are the entries of the parameters."""
        return 0

    def coordinates(self, seed: int, name: str) -> Tensor:
        """z of one parameter at this step, masked, fp32 or wider."""
        if name in self._vector:
            self._draw(seed)
            return self._vector[name].drawn
        each = self.weights_of[name]
        exact = torch.promote_types(each.parameter.dtype, torch.float32)
        if not self._is_active(name):
            return torch.zeros(each.parameter.shape, dtype=exact, device=each.parameter.device)
        return each.z(noise.noise_key(seed, name)).to(exact)

    def shift(self, name: str, change: Tensor) -> None:
        """`θ ← θ + change` for one parameter, at once."""
        if name in self._vector:
            self._vector[name].learnt.add_(change)
            return
        self._flush()
        each = self.weights_of[name]
        noise.add(each.parameter.data, each.beside, change, 1.0, each.remedy, self._rounding_key(name))

    def decay(self, factor: float) -> None:
        """`θ ← factor·θ` for matrices, with the next `begin` or `settle`."""
        self._factor *= factor
        self._moves = [(seed, amount * factor) for seed, amount in self._moves]

    def _rounding_key(self, name: str) -> int:
        return noise.noise_key(derive_seed(self._seed, "rounding", self._step), name)

    def _flush(self) -> None:
        """Make the collected moves of the matrices."""
        moves, factor = self._moves, self._factor
        self._moves, self._factor = [], 1.0
        if not moves and factor == 1.0:
            return
        for name, each in self.weights_of.items():
            keyed = [(noise.noise_key(seed, name), amount) for seed, amount in moves] if self._is_active(name) else []
            if keyed or factor != 1.0:
                each.move(keyed, factor, self._rounding_key(name))

    def settle(self) -> None:
        """Make the collected moves and round the fp32 vectors into the stored ones."""
        self._flush()
        for vector in self.vectors:
            vector.merge()

    def weights(self) -> dict[str, Tensor]:
        """The stored weights."""
        stored = {name: each.parameter.data for name, each in self.weights_of.items()}
        return stored | {name: each.stored for name, each in self._vector.items()}

    def state(self) -> dict[str, Tensor]:
        """Residuals or master copies, the fp32 vectors and the step."""
        self._flush()
        state = {f"beside.{name}": each.beside for name, each in self.weights_of.items() if each.beside is not None}
        state |= {f"learnt.{name}": each.learnt for name, each in self._vector.items()}
        return state | {"step": torch.tensor([self._step])}

    def load(self, weights: dict[str, Tensor], state: dict[str, Tensor]) -> None:
        """Take up where `weights()` and `state()` were taken."""
        self._moves, self._factor = [], 1.0
        for name, stored in self.weights().items():
            stored.copy_(weights[name])
        for name, each in self.weights_of.items():
            if each.beside is not None:
                each.beside.copy_(state[f"beside.{name}"])
        for name, vector in self._vector.items():
            vector.learnt.copy_(state[f"learnt.{name}"])
        self.begin(int(state["step"].item()))

    def close(self) -> None:
        """Make the collected moves and take everything off the model."""
        self._flush()
        for hook in self._hooks:
            hook.remove()
        for undos in self._undo.values():
            for undo in undos:
                undo()
        self._hooks, self._undo = [], {}


def _threshold(weight: Tensor, density: float) -> float:
    """The magnitude that a share `density` of the entries does not exceed."""
    sizes = weight.abs().float().flatten()
    place = max(1, round(density * sizes.numel()))
    return float(sizes.kthvalue(place).values) if sizes.numel() else 0.0
