"""What a step reads and writes on the device besides weights: keys, scales, losses, coefficients."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
from torch import Tensor

from optaware.train.gpu._passes import coefficients
from optaware.train.gpu._tables import key_halves

__all__ = ["Frame"]


class Frame:
    """Small tensors with fixed addresses, so that a captured graph finds the numbers of each step in them.

    What the host sends lies side by side and arrives in one copy, which also sets the losses to zero.

    Attributes:
        keys: Key of each query and parameter, flat, int32 halves.
        query: Number of the query that is being probed, int32, (1).
        schedule: lr, eps, limit of abs(g) and decay factor of the step, fp64, (4).
        losses: (queries, 2): losses of both signs, summed over the parts of the batch, fp32.
        found: Coefficient of each query, fp32; NaN where a loss was not finite.
        amounts: What each z is multiplied by in the update, fp32.
        decay: Factor of the matrices in the update, fp32, (1).
        one: 1.0, (1).
    """

    def __init__(self, names: Sequence[str], queries: int, clip: bool, device: torch.device) -> None:
        self.names, self.clip, self.most = tuple(names), clip, queries
        self.sites = len(self.names)
        self._head = 4 + (3 * queries + 1) // 2
        self._flat = torch.zeros(self._head + queries * self.sites, dtype=torch.int64, device=device)
        self.schedule = self._flat[:4].view(torch.float64)
        self.results = self._flat[4 : self._head].view(torch.float32)[: 3 * queries]
        self.keys = self._flat[self._head :].view(torch.int32)
        self.losses = self.results[: 2 * queries].view(queries, 2)
        self.found = self.results[2 * queries :]
        self.query = torch.zeros(1, dtype=torch.int32, device=device)
        self._query = 0
        self.amounts = torch.zeros(queries, dtype=torch.float32, device=device)
        self.decay = torch.ones(1, dtype=torch.float32, device=device)
        self.one = torch.ones(1, dtype=torch.float32, device=device)
        self._pin = device.type == "cuda"

    @property
    def eps(self) -> Tensor:
        """The perturbation scale, (1)."""
        return self.schedule[1:2]

    def host_keys(self, keys: Sequence[Sequence[int]]) -> Tensor:
        """A step's numbers in host memory, with the keys of its queries and parameters filled in."""
        halves = key_halves([key for query in keys for key in query]).view(torch.int64)
        host = torch.zeros(self._head + len(halves), dtype=torch.int64, pin_memory=self._pin)
        host[self._head :] = halves
        return host

    def begin(self, host: Tensor, lr: float, eps: float, clip: float | None, decay: float) -> None:
        """Send a step's numbers and forget the last step's losses."""
        host[:4].view(torch.float64).copy_(torch.tensor((lr, eps, clip or 0.0, decay), dtype=torch.float64))
        self._flat[: len(host)].copy_(host, non_blocking=True)

    def choose(self, query: int) -> None:
        """Which query is probed next."""
        if query != self._query:
            self.query.fill_(query)
            self._query = query

    def close(self, queries: int) -> None:
        """Coefficients and amounts from the losses."""
        self._coefficients(queries, False)

    def share(self, queries: int) -> None:
        """Amounts from the coefficients in `found`."""
        self._coefficients(queries, True)

    def _coefficients(self, queries: int, given: bool) -> None:
        block = max(2, triton.next_power_of_2(queries))
        coefficients[(1,)](
            self.losses, self.schedule, self.found, self.amounts, self.decay, queries,
            CLIP=self.clip and not given, GIVEN=given, BLOCK=block,
        )  # fmt: skip
