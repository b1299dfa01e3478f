from __future__ import annotations

from pathlib import Path

from optaware.records import ChatModelRef, ComplementaryPromptTuning
from optaware.train.methods.prompt_tuning.proposers._evolutionary import Evolutionary
from optaware.train.methods.prompt_tuning.proposers._protocol import Proposer, Vocabulary
from optaware.train.methods.prompt_tuning.proposers._random import Nothing, Perturbation, RandomTokens
from optaware.train.methods.prompt_tuning.proposers._replay import Replay

__all__ = ["make_proposer"]


def make_proposer(method: ComplementaryPromptTuning, words: Vocabulary, cache: Path | None) -> Proposer:
    """The proposer that a config names.

    Args:
        method: The config.
        words: The model's vocabulary.
        cache: Where replies of chat models are kept.

    Raises:
        InputError: The recording, the chat model or a library cannot be used.
    """
    match method.proposer:
        case "none":
            return Nothing()
        case "random-tokens":
            return RandomTokens(words)
        case "perturbation":
            return Perturbation(words, method.sigma)
        case "evolutionary":
            return Evolutionary(words, method.search_asks)
        case "bayesian" | "cma-es":
            from optaware.train.methods.prompt_tuning.proposers._subspace import CMAES, Bayesian

            searcher = Bayesian if method.proposer == "bayesian" else CMAES
            return searcher(words, method.subspace, method.sigma, method.search_asks)
        case "replay":
            assert method.replay is not None
            return Replay.read(Path(method.replay), method.replay_sha256, method.llm)
        case "llm":
            from optaware.llm import open_chat
            from optaware.train.methods.prompt_tuning.proposers._llm import LLM

            ref = ChatModelRef(
                provider=method.llm_provider,
                model=method.llm,
                base_url=method.llm_base_url,
                temperature=method.llm_temperature,
            )
            return LLM(open_chat(ref, cache=cache), method.llm_temperature)
