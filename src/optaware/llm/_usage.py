"""Counting what calls cost, and stopping when a budget is spent."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace

from optaware.errors import BudgetExhausted, InputError, Problem
from optaware.records import ChatModelRef, ChatReply, Usage

__all__ = ["Budget", "Meter", "OnUsage", "Totals", "add_usage", "price"]


def price(ref: ChatModelRef, prompt_tokens: int, completion_tokens: int) -> Usage:
    """Tokens and their cost in US dollars; the cost is None when a price is not known.

    `cost = (prompt_tokens · p + completion_tokens · c) / 1e6` with `p`, `c` = `usd_per_million_*_tokens`.
    """
    p, c = ref.usd_per_million_prompt_tokens, ref.usd_per_million_completion_tokens
    cost = None if p is None or c is None else (prompt_tokens * p + completion_tokens * c) / 1e6
    return Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens, cost_usd=cost)


def add_usage(a: Usage, b: Usage) -> Usage:
    """The sum of two usages; an unknown cost makes the sum unknown unless that side has no tokens."""
    costs = [u.cost_usd for u in (a, b) if u.cost_usd is not None or u.prompt_tokens or u.completion_tokens]
    known = [cost for cost in costs if cost is not None]
    return Usage(
        prompt_tokens=a.prompt_tokens + b.prompt_tokens,
        completion_tokens=a.completion_tokens + b.completion_tokens,
        cost_usd=sum(known) if known and len(known) == len(costs) else None,
    )


@dataclass(frozen=True)
class Totals:
    """Running totals of one opened chat model.

    Attributes:
        replies: All replies handed out.
        calls: Replies that the provider was asked for, errors included.
        cached: Replies that cost nothing: from the cache, or shared with an identical request of the same run.
        errors: Replies with `error` set.
        retries: Attempts beyond the first.
        prompt_tokens: Tokens of `calls`, as the provider counted them.
        completion_tokens: Likewise.
        cost_usd: Cost of the calls whose price is known; None when there is none.
        unpriced_calls: Calls whose cost is unknown, so that `cost_usd` does not hold them.
        wall_s: Seconds between the start of `complete` and now, over all its calls.
    """

    replies: int = 0
    calls: int = 0
    cached: int = 0
    errors: int = 0
    retries: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None
    unpriced_calls: int = 0
    wall_s: float = 0.0


OnUsage = Callable[[Totals], None]
"""Called after every reply, in the thread that iterates."""


class Meter:
    """Keeps `Totals`; safe to use from several threads."""

    def __init__(self, on_usage: OnUsage | None = None) -> None:
        self._totals = Totals()
        self._on_usage = on_usage
        self._lock = threading.Lock()

    @property
    def totals(self) -> Totals:
        """The totals so far."""
        return self._totals

    def call(self, reply: ChatReply) -> None:
        """Count the work behind a reply that the provider gave."""
        with self._lock:
            now, usage = self._totals, reply.usage
            priced = usage.cost_usd is not None
            self._totals = replace(
                now,
                calls=now.calls + 1,
                retries=now.retries + max(0, reply.attempts - 1),
                prompt_tokens=now.prompt_tokens + usage.prompt_tokens,
                completion_tokens=now.completion_tokens + usage.completion_tokens,
                cost_usd=(now.cost_usd or 0.0) + (usage.cost_usd or 0.0) if priced else now.cost_usd,
                unpriced_calls=now.unpriced_calls + (not priced),
            )

    def handed_out(self, reply: ChatReply) -> None:
        """Count a reply on its way to the caller and tell the callback."""
        with self._lock:
            now = self._totals
            self._totals = replace(
                now,
                replies=now.replies + 1,
                cached=now.cached + reply.cached,
                errors=now.errors + (reply.error is not None),
            )
            totals = self._totals
        if self._on_usage is not None:
            self._on_usage(totals)

    def waited(self, seconds: float) -> None:
        """Add to the wall time."""
        with self._lock:
            self._totals = replace(self._totals, wall_s=self._totals.wall_s + seconds)


class Budget:
    """Limits in dollars and tokens on what the provider is asked for; cached replies are free.

    Requests in flight are reckoned at the mean of the finished ones, so that the limit is overshot by little; the
    first ones, of which nothing is known, are let through.
    """

    def __init__(self, usd: float | None = None, tokens: int | None = None) -> None:
        self.usd, self.tokens = usd, tokens
        self.spent_usd, self.spent_tokens, self._calls = 0.0, 0, 0

    @classmethod
    def of(cls, ref: ChatModelRef) -> Budget | None:
        """The budget that a reference states, if any.

        Raises:
            InputError: A limit in dollars without both prices could never be reached.
        """
        if ref.budget_usd is None and ref.budget_tokens is None:
            return None
        prices = (ref.usd_per_million_prompt_tokens, ref.usd_per_million_completion_tokens)
        if ref.budget_usd is not None and None in prices:
            raise InputError(
                Problem(
                    "budget-without-price",
                    f"budget_usd = {ref.budget_usd} for {ref.model!r}",
                    "without prices the cost of a call is unknown and the budget would never stop anything",
                    "Give usd_per_million_prompt_tokens and usd_per_million_completion_tokens, or use budget_tokens.",
                )
            )
        return cls(ref.budget_usd, ref.budget_tokens)

    def charge(self, usage: Usage, billed_tokens: int | None = None) -> None:
        """Add what one call used (`billed_tokens` stands in when the provider did not count)."""
        counted = usage.prompt_tokens + usage.completion_tokens
        self.spent_tokens += counted if billed_tokens is None else max(counted, billed_tokens)
        self.spent_usd += usage.cost_usd or 0.0
        self._calls += 1

    @property
    def spent(self) -> bool:
        """Whether a limit is reached."""
        return not self.admits(0)

    def admits(self, in_flight: int) -> bool:
        """Whether one more request may go out beside `in_flight` others."""
        share = in_flight / max(1, self._calls)
        return (self.usd is None or self.spent_usd * (1 + share) < self.usd) and (
            self.tokens is None or self.spent_tokens * (1 + share) < self.tokens
        )

    def error(self) -> BudgetExhausted:
        """The error that ends the run."""
        limits = [f"${self.usd:g}"] if self.usd is not None else []
        limits += [f"{self.tokens} tokens"] if self.tokens is not None else []
        spent = f"{self.spent_tokens} tokens" + (f" and ${self.spent_usd:.6f}" if self.usd is not None else "")
        return BudgetExhausted(
            Problem(
                "budget-exhausted",
                f"a budget of {' and '.join(limits)}",
                f"{spent} were spent on {self._calls} calls and requests are left",
                "Raise budget_usd or budget_tokens and run the same command again: finished replies are kept.",
            )
        )
