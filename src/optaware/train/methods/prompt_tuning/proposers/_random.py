"""Proposers without intelligence: the controls."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from optaware.train._seeds import derive_seed, generator
from optaware.train.methods.prompt_tuning.proposers._protocol import History, Proposal, Proposed, Vocabulary

__all__ = ["Nothing", "Perturbation", "RandomTokens"]


@dataclass(frozen=True)
class Nothing:
    """Proposes nothing: gradient steps only."""

    asks: int = 0

    def propose(self, history: History, k: int) -> Proposed:
        """No proposals."""
        return Proposed(())


@dataclass(frozen=True)
class RandomTokens:
    """Prompts of n tokens drawn from the whole vocabulary of visible text: restarts at random."""

    words: Vocabulary
    asks: int = 1

    def propose(self, history: History, k: int) -> Proposed:
        """k prompts, a function of seed and round."""
        source = generator(derive_seed(history.seed, "random-tokens", history.round, len(history.trials)))
        allowed = self.words.allowed.cpu()
        picks = torch.randint(len(allowed), (k, self.words.length), generator=source)
        return Proposed(tuple(Proposal(ids=tuple(row)) for row in allowed[picks].tolist()))


@dataclass(frozen=True)
class Perturbation:
    """θ plus Gaussian noise of `sigma` standard deviations of the embeddings' entries."""

    words: Vocabulary
    sigma: float
    asks: int = 1

    def propose(self, history: History, k: int) -> Proposed:
        """k neighbours of θ, a function of seed and round."""
        source = generator(derive_seed(history.seed, "perturbation", history.round, len(history.trials)))
        scale = self.sigma * self.words.spread
        noise = torch.randn((k, *history.current.shape), generator=source).to(history.current.device)
        return Proposed(tuple(Proposal(prompt=history.current + scale * each) for each in noise))
