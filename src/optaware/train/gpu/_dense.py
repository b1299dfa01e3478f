"""Dense noise inside the forward pass: both perturbed copies of some rows, then a product with each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
from torch import Tensor

from optaware.train.gpu._frame import Frame
from optaware.train.gpu._passes import gather_rows, move, show
from optaware.train.gpu._reading import Decoder
from optaware.train.gpu._tables import Part, Tiles, site_table
from optaware.train.gpu._vectors import TRITON_TYPES, Vectors

__all__ = ["ROUNDINGS", "Dense", "rounding_for"]

ROUNDINGS = {"none": 0, "stochastic": 1, "residual": 2}

_SCRATCH_BYTES = 33 << 20


def rounding_for(rounding: str, dtype: torch.dtype) -> str:
    """The way of rounding that a dtype can have: fp32 needs none, and random bits below the cut are for bf16."""
    if dtype.itemsize >= 4:
        return "none"
    return "residual" if rounding == "stochastic" and dtype != torch.bfloat16 else rounding


class Dense:
    """`θ ± eps·z`, z ~ N(0, I) or of random signs for all parameters, without writing a weight: see `Direction` for the idea.

    A matrix is taken a block of rows at a time: one kernel reads the block, draws its z once and writes W + eps·z and
    W − eps·z to a scratch area that all blocks share, and one batched product multiplies the rows of each sign with its
    copy. Of embeddings only the rows that are looked up are perturbed. The update is one pass over all weights, with z
    drawn once more.

    Args:
        decoder: The model.
        frame: Keys and scales.
        rounding: How a moved weight is rounded to its dtype: "none", "stochastic" or "residual".
        signs: Whether z is ±1 (Rademacher) instead of Gaussian.
        scratch_bytes: Size of the scratch area.
    """

    rank = 0

    def __init__(
        self,
        decoder: Decoder,
        frame: Frame,
        rounding: str,
        signs: bool = False,
        scratch_bytes: int = _SCRATCH_BYTES,
    ) -> None:
        self.decoder, self.frame, self.signs = decoder, frame, signs
        weights = {name: each.data for name, each in decoder.parameters.items()}
        self.matrices = {name: each for name, each in weights.items() if each.ndim == 2}
        self.vectors = Vectors(decoder.parameters, [name for name in weights if weights[name].ndim < 2], frame, signs)
        first = next(iter(self.matrices.values()))
        self.device, self.dtype = first.device, first.dtype
        self.source = TRITON_TYPES[self.dtype]
        self.rounding = rounding_for(rounding, self.dtype)
        self.residuals: dict[str, Tensor] = {}
        if self.rounding == "residual":
            self.residuals = {name: torch.zeros_like(each) for name, each in self.matrices.items()}
        self.site = {name: at for at, name in enumerate(frame.names)}
        self.sites = torch.zeros(frame.sites, 4, dtype=torch.int64, device=self.device)
        self.sites[[self.site[name] for name in self.matrices]] = site_table(list(self.matrices.values()))
        self.rests = self.sites
        if self.residuals:
            self.rests = torch.zeros(frame.sites, dtype=torch.int64)
            for name, each in self.residuals.items():
                self.rests[self.site[name]] = each.data_ptr()
            self.rests = self.rests.to(self.device)
        widest = max(each.shape[1] for each in self.matrices.values())
        self._numbers = max(scratch_bytes // self.dtype.itemsize // 2, 8 * widest)
        self.scratch = torch.empty(2 * self._numbers, dtype=self.dtype, device=self.device)
        parts = [
            Part(self.site[name], (0, each.shape[0]), *([each.shape[1]] * 2)) for name, each in self.matrices.items()
        ]
        self.all_tiles = self._tiles(parts)
        self.step = 0
        self._plans: dict[Any, list[tuple[Tiles, int, int]]] = {}

    def _tiles(self, parts: Sequence[Part]) -> Tiles:
        widest = max(part.columns for part in parts)
        block = min(1024, max(16, triton.next_power_of_2((widest + 1) // 2)))
        return Tiles(parts, self.device, block)

    def _plan(self, names: tuple[str, ...], span: tuple[int, int] | None = None) -> list[tuple[Tiles, int, int]]:
        """Blocks of the rows of some matrices stacked (or of some of these rows): tiles, first row, row after the last."""
        if (names, span) in self._plans:
            return self._plans[names, span]
        heights = [self.matrices[name].shape[0] for name in names]
        columns, (begin, stop) = self.matrices[names[0]].shape[1], span or (0, sum(heights))
        most = self._numbers // columns // 8 * 8
        pieces = -(-(stop - begin) // most)
        rows = -(-(stop - begin) // pieces // 8) * 8
        plan = []
        for first in range(begin, stop, rows):
            end, parts, start = min(first + rows, stop), [], 0
            for name, height in zip(names, heights, strict=True):
                low, high = max(first, start), min(end, start + height)
                if low < high:
                    target = (low - first) * columns
                    parts.append(Part(self.site[name], (low - start, high - start), columns, columns, target))
                start += height
            plan.append((self._tiles(parts), first, end))
        self._plans[names, span] = plan
        return plan

    def _show(self, tiles: Tiles, rows: int, columns: int) -> Tensor:
        """Both perturbed copies of the rows of some tiles, (2, rows, columns), in the scratch area."""
        both = self.scratch[: 2 * rows * columns].view(2, rows, columns)
        show[(tiles.count,)](
            tiles.table, self.sites, self.frame.keys, self.frame.query, self.frame.eps, both, both.stride(0), columns,
            SITES=self.frame.sites, SOURCE=self.source, ALIGN=tiles.align, BLOCK=tiles.block, TURNS=tiles.turns,
            SIGNS=self.signs,
        )  # fmt: skip
        return both

    def begin(self) -> None:
        """Draw what the whole forward pass needs."""
        self.vectors.show()

    def inner(self, names: tuple[str, ...], value: Tensor) -> Tensor | None:
        """Nothing: a dense perturbation has no side products."""
        return None

    def project(
        self,
        names: tuple[str, ...],
        value: Tensor,
        inner: Tensor | None,
        out: Tensor,
        side: bool = True,
        span: tuple[int, int] | None = None,
    ) -> None:
        """`out[s] = value[s] · W_sᵀ` for the stacked matrices `names`, s the sign; value (2, M, n), out (2, M, m).

        With `span` only these rows of the stacked matrices, that is these columns of the product, are made.
        """
        begin = span[0] if span else 0
        for tiles, first, end in self._plan(names, span):
            both = self._show(tiles, end - first, value.shape[2])
            torch.bmm(value, both.transpose(1, 2), out=out[:, :, first - begin : end - begin])

    def rows(self, name: str, ids: Tensor) -> Tensor:
        """Rows `ids` (flat) of a matrix with both signs, (2, len(ids), n)."""
        weight = self.matrices[name]
        width = weight.shape[1]
        out = torch.empty(2, len(ids), width, dtype=self.dtype, device=self.device)
        block = min(1024, triton.next_power_of_2((width + 1) // 2))
        gather_rows[(len(ids),)](
            weight, ids, self.frame.keys, self.frame.query, self.frame.eps, out, len(ids),
            SITE=self.site[name], SITES=self.frame.sites, WIDTH=width, BLOCK=block, SIGNS=self.signs,
        )  # fmt: skip
        return out

    def head_blocks(self, value: Tensor) -> list[tuple[int, int]]:
        """Blocks of the vocabulary that logits are made in."""
        return [(first, end) for _, first, end in self._plan((self.decoder.head,))]

    def head_block(self, value: Tensor, at: int) -> Tensor:
        """Logits (2, P, block) of one block of the vocabulary."""
        tiles, first, end = self._plan((self.decoder.head,))[at]
        both = self._show(tiles, end - first, value.shape[2])
        return torch.bmm(value, both.transpose(1, 2))

    def move(self, queries: int) -> None:
        """The update of all parameters."""
        move[(self.all_tiles.count,)](
            self.all_tiles.table, self.sites, self.frame.keys, self.frame.amounts, self.frame.decay, self.rests, queries,
            SITES=self.frame.sites, SOURCE=self.source, ROUNDING=ROUNDINGS[self.rounding],
            ALIGN=self.all_tiles.align, BLOCK=self.all_tiles.block, TURNS=self.all_tiles.turns, SIGNS=self.signs,
        )  # fmt: skip
        self.vectors.move(queries)

    def refresh(self, step: int) -> None:
        """Nothing is redrawn from time to time."""
        self.step = step

    def foresee(self, step: int) -> None:
        """Nothing is redrawn from time to time."""

    def settle(self) -> None:
        """Round the vectors into the model."""
        self.vectors.settle()

    def weights(self) -> dict[str, Tensor]:
        """The stored weights."""
        return {name: each.data for name, each in self.decoder.parameters.items()}

    def state(self) -> dict[str, Tensor]:
        """The fp32 vectors, the residuals and the step, named as the `Dense` direction of hooks names them."""
        state = {f"beside.{name}": each for name, each in self.residuals.items()}
        state |= {f"learnt.{name}": self.vectors.learnt_of(name) for name in self.vectors.names}
        return state | {"step": torch.tensor([self.step])}

    def load(self, state: dict[str, Tensor]) -> None:
        """Take up a saved state."""
        for name in self.vectors.names:
            self.vectors.learnt_of(name).copy_(state[f"learnt.{name}"].reshape(-1))
        for name, each in self.residuals.items():
            each.copy_(state[f"beside.{name}"])
        self.step = int(state["step"].item())
