"""Which prompts share a prefix worth computing once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["PrefixGroup", "common_prefix", "group_by_prefix"]

_STEP = 32
_GROUP_COST = 512


@dataclass(frozen=True)
class PrefixGroup:
    """Prompts (by index) whose first `shared` tokens are the same; at least one token of each lies beyond them."""

    indices: tuple[int, ...]
    shared: int


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """Number of leading tokens that both share."""
    for index, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return index
    return min(len(first), len(second))


def group_by_prefix(prompts: Sequence[Sequence[int]]) -> list[PrefixGroup]:
    """Partition prompts so that few tokens are computed when each group's prefix is computed once.

    A group of n prompts with a common prefix of p tokens costs `p + Σ (len − p)` tokens, and each group costs another
    512 tokens, because its last batch is not full. Prompts sorted by their tokens form a tree of prefixes; walking it
    from the leaves, each branch becomes a group of its own where that is cheaper than staying with its siblings.
    Branches closer together than 32 tokens are not told apart.
    """
    order = sorted(range(len(prompts)), key=lambda index: tuple(prompts[index]))
    shared = [common_prefix(prompts[a], prompts[b]) // _STEP for a, b in pairwise(order)]
    lengths = [len(prompts[index]) for index in order]

    def best(low: int, high: int) -> tuple[int, list[list[int]]]:
        """Cost and groups of the sorted prompts `low … high − 1`."""
        fork = min(shared[low : high - 1]) * _STEP
        cuts = [at + 1 for at in range(low, high - 1) if shared[at] * _STEP == fork]
        cost, groups, rest = 0, [], []
        for start, end in zip([low, *cuts], [*cuts, high], strict=True):
            staying = sum(lengths[start:end]) - (end - start) * fork
            own_cost, own = best(start, end) if end - start > 1 else (staying, [])
            if own_cost < staying:
                cost += own_cost
                groups += own
            else:
                cost += staying
                rest += order[start:end]
        if rest:
            cost += fork + _GROUP_COST
            groups.append(rest)
        return cost, groups

    groups = best(0, len(order))[1] if len(order) > 1 else [order] if order else []
    return [PrefixGroup(tuple(sorted(group)), _shared(prompts, group)) for group in groups]


def _shared(prompts: Sequence[Sequence[int]], group: Sequence[int]) -> int:
    if len(group) == 1:
        return 0
    ordered = sorted(tuple(prompts[index]) for index in group)
    return min(common_prefix(ordered[0], ordered[-1]), min(map(len, ordered)) - 1)
