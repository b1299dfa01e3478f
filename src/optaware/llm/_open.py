"""From a reference to a chat model that is ready to use."""

from __future__ import annotations

from pathlib import Path

from optaware.llm._cache import ReplyCache
from optaware.llm._chat import Chat
from optaware.llm._protocol import Provider
from optaware.llm._usage import Budget, OnUsage
from optaware.records import ChatModelRef

__all__ = ["open_chat"]


def open_chat(ref: ChatModelRef, *, cache: Path | None, on_usage: OnUsage | None = None, payer: str = "") -> Chat:
    """The chat model that `ref` names, with cache, budget and accounting around it.

    Nothing is connected to or loaded yet: that happens at the first request that the cache does not answer.

    Args:
        ref: Provider, model, prices, limits.
        cache: Folder of the `ReplyCache`; None: nothing is kept between runs.
        payer: Name of the work that replies are asked for (see `ChatReply.payer`).
        on_usage: Called with the `Totals` after every reply, in the thread that iterates.

    Raises:
        InputError: An address, a script or a budget cannot be used as given.
    """
    budget = Budget.of(ref)
    kept = None if cache is None else ReplyCache(cache)
    return Chat(_provider(ref), cache=kept, budget=budget, on_usage=on_usage, payer=payer)


def _provider(ref: ChatModelRef) -> Provider:
    if ref.provider == "openai":
        from optaware.llm._openai import OpenAIProvider

        return OpenAIProvider(ref)
    if ref.provider == "scripted":
        from optaware.llm._scripted import ScriptedProvider

        return ScriptedProvider.from_file(ref)
    from optaware.llm._local import LocalProvider

    return LocalProvider(ref)
