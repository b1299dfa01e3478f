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
        self.keys = torch.zeros(queries * self.sites * 2, dtype=torch.int32, device=device)
        self.query = torch.zeros(1, dtype=torch.int32, device=device)
        self.schedule = torch.zeros(4, dtype=torch.float64, device=device)
        self.results = torch.zeros(3 * queries, dtype=torch.float32, device=device)
        self.losses = self.results[: 2 * queries].view(queries, 2)
        self.found = self.results[2 * queries :]
        self.amounts = torch.zeros(queries, dtype=torch.float32, device=device)
        self.decay = torch.ones(1, dtype=torch.float32, device=device)
        self.one = torch.ones(1, dtype=torch.float32, device=device)
        self._pin = device.type == "cuda"

    @property
    def eps(self) -> Tensor:
        """The perturbation scale, (1)."""
        return self.schedule[1:2]

    def host_keys(self, keys: Sequence[Sequence[int]]) -> Tensor:
        """The keys of a step's queries and parameters in host memory, ready to be sent."""
        halves = key_halves([key for query in keys for key in query])
        return halves.pin_memory() if self._pin else halves

    def begin(self, keys: Tensor, lr: float, eps: float, clip: float | None, decay: float) -> None:
        """Send a step's numbers and forget the last step's losses."""
        self.keys[: len(keys)].copy_(keys, non_blocking=True)
        numbers = torch.tensor([lr, eps, 0.0 if clip is None else clip, decay], dtype=torch.float64)
        self.schedule.copy_(numbers.pin_memory() if self._pin else numbers, non_blocking=True)
        self.results.zero_()

    def close(self, queries: int) -> None:
        """Coefficients and amounts from the losses."""
        block = max(2, triton.next_power_of_2(queries))
        coefficients[(1,)](
            self.losses, self.schedule, self.found, self.amounts, self.decay, queries, CLIP=self.clip, BLOCK=block
        )
