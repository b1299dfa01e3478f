"""One budget for all arms: forward passes times examples."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BACKWARD", "Ledger"]

BACKWARD = 3
"""What a forward and a backward pass of one example cost, in forward passes."""


@dataclass
class Ledger:
    """What may be spent and what was.

    Attributes:
        budget: In forward passes times examples.
        spent: So far; never more than the budget.
    """

    budget: int
    spent: int = 0

    @classmethod
    def of_steps(cls, steps: int, batch_size: int) -> Ledger:
        """The budget of so many gradient steps."""
        return cls(BACKWARD * steps * batch_size)

    def affords(self, cost: int, limit: int | None = None) -> bool:
        """Whether `cost` more stays within the budget (or within `limit`, where that is lower)."""
        return self.spent + cost <= (self.budget if limit is None else min(limit, self.budget))

    def spend(self, cost: int) -> None:
        """Note what was spent."""
        if not self.affords(cost):
            raise ValueError(f"{cost} on top of {self.spent} is more than {self.budget}")
        self.spent += cost
