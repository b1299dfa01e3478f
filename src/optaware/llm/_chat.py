"""`Chat`: cache, single flight, budget and accounting around one provider."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable, Iterator

from optaware.errors import OptawareError
from optaware.llm._cache import ReplyCache
from optaware.llm._protocol import Done, Provider, Session, request_id
from optaware.llm._usage import Budget, Meter, OnUsage, Totals
from optaware.records import ChatReply, ChatRequest

__all__ = ["FINAL_ERRORS", "Chat"]

logger = logging.getLogger("optaware.llm")

FINAL_ERRORS = frozenset({"refusal"})
"""Error codes that are the model's own, paid-for answer: cached like text. Others are asked again next time."""


class Chat:
    """A `ChatModel` made of a provider and what every provider needs around it.

    Args:
        provider: Where replies come from.
        cache: Replies of earlier runs; None: nothing is kept.
        budget: Limits on what the provider is asked for; it counts over all calls of `complete`.
        on_usage: Called after every reply with the totals so far.
        payer: Name of the work that replies are asked for; kept with each, see `ChatReply.payer`.
        grace_s: How long requests in flight may still finish after the endpoint turned out to be unusable.
    """

    def __init__(
        self,
        provider: Provider,
        *,
        cache: ReplyCache | None = None,
        budget: Budget | None = None,
        on_usage: OnUsage | None = None,
        payer: str = "",
        grace_s: float = 5.0,
    ) -> None:
        self._provider = provider
        self._payer = payer
        self._cache = cache
        self._budget = budget
        self._meter = Meter(on_usage)
        self._grace_s = grace_s

    @property
    def identity(self) -> str:
        """The provider's identity."""
        return self._provider.identity

    @property
    def totals(self) -> Totals:
        """What was asked, cached, used and paid so far."""
        return self._meter.totals

    def complete(self, requests: Iterable[ChatRequest]) -> Iterator[ChatReply]:
        """Answer every request with one reply; see `ChatModel.complete`.

        Identical requests (key aside) that are in flight together are sent once; their replies differ in `key`, and
        all but the first have `cached` set. `usage` of a cached reply is what it cost when it was made.
        """
        flight = _Flight(self._provider, self._cache, self._budget, self._meter, self._payer)
        began = time.monotonic()
        try:
            for reply in flight.run(iter(requests), self._grace_s):
                now = time.monotonic()
                self._meter.waited(now - began)
                began = now
                self._meter.handed_out(reply)
                yield reply
        finally:
            flight.close()
            self._meter.waited(time.monotonic() - began)
        if flight.stop is not None:
            raise flight.stop


class _Flight:
    """One call of `complete`: what is in the air, and why it stopped."""

    def __init__(
        self, provider: Provider, cache: ReplyCache | None, budget: Budget | None, meter: Meter, payer: str
    ) -> None:
        self._provider, self._cache, self._budget, self._meter = provider, cache, budget, meter
        self._payer = payer
        self._identity = provider.identity
        # A session may queue a little more than it works on; with a budget, nothing may wait in a queue that is
        # already committed to being sent.
        self._window = provider.window if budget is None else min(provider.window, provider.concurrency)
        self._session: Session | None = None
        self._waiting: dict[str, list[str]] = {}
        self._unanswered = 0
        self.stop: OptawareError | None = None

    def run(self, source: Iterator[ChatRequest], grace_s: float) -> Iterator[ChatReply]:
        held: ChatRequest | None = None
        while True:
            while self.stop is None and len(self._waiting) < self._window and self._unanswered < 4 * self._window:
                request = held if held is not None else next(source, None)
                held = None
                if request is None:
                    break
                found = self._known_or_sent(request)
                if isinstance(found, ChatReply):
                    yield found
                elif not found:
                    if not self._waiting:
                        assert self._budget is not None
                        self.stop = self._budget.error()
                    held = request
                    break
            if not self._waiting or self._session is None:
                return
            done = self._session.wait(grace_s if isinstance(self.stop, ConnectionError) else None)
            if done is None:
                return
            yield from self._settle(done)

    def _known_or_sent(self, request: ChatRequest) -> ChatReply | bool:
        """The cached reply; or True when the request is on its way; or False when the budget holds it back."""
        name = request_id(self._identity, request)
        if name not in self._waiting:
            if self._cache is not None and (hit := self._cache.get(name)) is not None:
                return hit.model_copy(update={"key": request.key, "cached": True})
            if self._budget is not None and not self._budget.admits(len(self._waiting)):
                return False
            if self._session is None:
                self._session = self._provider.open()
            self._session.submit(name, request)
            self._waiting[name] = []
        self._waiting[name].append(request.key)
        self._unanswered += 1
        return True

    def _settle(self, done: Done) -> Iterator[ChatReply]:
        keys = self._waiting.pop(done.request_id)
        self._unanswered -= len(keys)
        if done.stop is not None:
            self.stop = self.stop or done.stop
            return
        reply = self._keep(done)
        for place, key in enumerate(keys):
            yield reply.model_copy(update={"key": key, "cached": place > 0})

    def _keep(self, done: Done) -> ChatReply:
        reply = done.reply
        assert reply is not None
        self._meter.call(reply)
        if self._budget is not None:
            self._budget.charge(reply.usage, done.billed_tokens)
        if self._cache is not None and (reply.error is None or reply.error_code in FINAL_ERRORS):
            self._cache.put(reply.model_copy(update={"payer": self._payer}))
        if reply.error is not None:
            logger.info("request %s: %s", reply.request_id[:12], reply.error)
        return reply

    def close(self) -> None:
        """Cancel what is in flight; what was finished meanwhile is paid for, so it goes into the cache."""
        if self._session is None:
            return
        session, self._session = self._session, None
        for done in session.close():
            if done.reply is not None:
                self._keep(done)
        if self._cache is not None:
            self._cache.sync()
