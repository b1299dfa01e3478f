"""Searchers of a small subspace around θ: `θ = θ₀ + A·z`, by CMA-ES or Bayesian optimisation."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch

from optaware.errors import InputError
from optaware.train._seeds import derive_seed, generator
from optaware.train.methods.prompt_tuning.proposers._protocol import History, Proposal, Proposed, Vocabulary

__all__ = ["CMAES", "Bayesian"]

_BOX = 3.0


@dataclass(frozen=True)
class _Subspace:
    words: Vocabulary
    dimension: int
    sigma: float
    asks: int

    def _proposal(self, history: History, point: Sequence[float]) -> Proposal:
        """A has Gaussian entries, scaled so that z ~ N(0, I) moves an entry of θ by `sigma` embedding deviations."""
        source = generator(derive_seed(history.seed, "subspace", history.round))
        shape = history.current.shape
        basis = torch.randn(shape.numel(), self.dimension, generator=source) / math.sqrt(self.dimension)
        z = torch.tensor(list(point), dtype=torch.float32)
        moved = (self.sigma * self.words.spread * (basis @ z)).reshape(shape)
        return Proposal(prompt=history.current + moved.to(history.current.device), point=tuple(map(float, point)))


@dataclass(frozen=True)
class CMAES(_Subspace):
    """CMA-ES (Hansen; as in BBT, Sun et al., ICML 2022) with `cma`, population k, from z = 0.

    It is run again from the start at every ask, on the answers so far, so it needs no state beside the history.
    """

    def propose(self, history: History, k: int) -> Proposed:
        """The next population of k points."""
        cma = _library("cma")
        source = np.random.default_rng(derive_seed(history.seed, "cma-es", history.round))
        options = {
            "popsize": max(2, k),
            "verbose": -9,
            "seed": np.nan,  # cma would seed numpy's global generator
            "randn": lambda *shape: source.standard_normal(shape),
            "bounds": [-_BOX, _BOX],
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # small populations are meant here
            strategy = cma.CMAEvolutionStrategy([0.0] * self.dimension, 1.0, options)
            points = strategy.ask()
            size = len(points)
            for start in range(0, len(history.trials) - size + 1, size):
                losses = [_finite(trial.loss) for trial in history.trials[start : start + size]]
                strategy.tell(points, losses)
                points = strategy.ask()
        return Proposed(tuple(self._proposal(history, point) for point in points))


@dataclass(frozen=True)
class Bayesian(_Subspace):
    """Bayesian optimisation with a Gaussian process (`optuna`'s GPSampler) on z in a box of ±3."""

    def propose(self, history: History, k: int) -> Proposed:
        """k points: random ones in the first ask, then those the process expects most of."""
        optuna = _library("optuna")
        names = [f"z{index:02d}" for index in range(self.dimension)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the sampler calls itself experimental
            optuna.logging.set_verbosity(optuna.logging.ERROR)
            seed = derive_seed(history.seed, "bayesian", history.round, len(history.trials)) % 2**31
            sampler = optuna.samplers.GPSampler(seed=seed, n_startup_trials=max(2, k))
            study = optuna.create_study(sampler=sampler, direction="minimize")
            space = {name: optuna.distributions.FloatDistribution(-_BOX, _BOX) for name in names}
            for trial in history.trials:
                if trial.proposal.point is not None and trial.loss is not None:
                    params = dict(zip(names, trial.proposal.point, strict=True))
                    study.add_trial(optuna.trial.create_trial(params=params, distributions=space, value=trial.loss))
            points = []
            for _ in range(k):
                asked = study.ask(space)
                points.append([asked.params[name] for name in names])
        return Proposed(tuple(self._proposal(history, point) for point in points))


def _finite(loss: float | None) -> float:
    return 1e9 if loss is None else loss


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise InputError.of(
            "library-missing", name, f"it is not installed ({error})", "Install it: pip install 'optaware[search]'."
        ) from None
