"""An evolutionary algorithm on the tokens of prompts."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from optaware.train._seeds import derive_seed, generator
from optaware.train.methods.prompt_tuning.proposers._protocol import (
    History,
    Proposal,
    Proposed,
    Vocabulary,
    best_first,
)

__all__ = ["Evolutionary"]


@dataclass(frozen=True)
class Evolutionary:
    """Genetic search: parents from the trajectory's texts and this round's trials, the better half of them.

    A child takes each token from one of two parents at random, then each token is replaced by a random one with
    probability `mutation`. With a single parent, crossover changes nothing and mutation is all there is.
    """

    words: Vocabulary
    asks: int
    mutation: float = 0.2

    def propose(self, history: History, k: int) -> Proposed:
        """k children, a function of history and seed; at least one token of a child is new."""
        source = generator(derive_seed(history.seed, "evolution", history.round, len(history.trials)))
        allowed = self.words.allowed.cpu()

        def token() -> int:
            return int(allowed[int(torch.randint(len(allowed), (1,), generator=source))])

        ranked = [each.ids for each in best_first([*history.candidates, *history.trials]) if each.ids]
        parents = list(dict.fromkeys(ranked))[: max(2, (len(ranked) + 1) // 2)]
        if not parents:
            parents = [tuple(token() for _ in range(self.words.length))]
        children = []
        for _ in range(k):
            pair = [parents[int(torch.randint(len(parents), (1,), generator=source))] for _ in range(2)]
            sides = torch.randint(2, (self.words.length,), generator=source).tolist()
            child = [pair[side][place] for place, side in enumerate(sides)]
            draws = torch.rand(self.words.length, generator=source)
            changed = set((draws < self.mutation).nonzero().flatten().tolist()) or {int(draws.argmin())}
            for place in changed:
                child[place] = token()
            children.append(Proposal(ids=tuple(child)))
        return Proposed(tuple(children))
