"""Any OpenAI-compatible endpoint, through the `openai` SDK, with our own retries and bounded concurrency."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable

from optaware._io import text_sha256
from optaware.llm._endpoint import Endpoint
from optaware.llm._openai_session import OpenAISession
from optaware.llm._protocol import Session
from optaware.llm._retry import RetryPolicy
from optaware.records import ChatModelRef

__all__ = ["OpenAIProvider"]


class OpenAIProvider:
    """Chat completions of one model at one endpoint.

    The key is read from the environment when a session opens, that is, when a request is not in the cache; it is
    never part of the identity.

    Args:
        ref: Model, address, prices, concurrency (requests in flight), time limit per request, retries.
        policy: How stubborn to be; by default `ref.max_retries` and the defaults of `RetryPolicy`.
        sleep: How to wait between attempts (tests record instead of waiting).
    """

    def __init__(
        self,
        ref: ChatModelRef,
        *,
        policy: RetryPolicy | None = None,
        sleep: Callable[[float], Awaitable[None]] | None = None,
    ) -> None:
        self.ref = ref
        self.policy = policy or RetryPolicy(max_retries=ref.max_retries, give_up_after=max(16, 2 * ref.concurrency))
        self._sleep = sleep
        self._endpoint = Endpoint.of(ref)

    @property
    def identity(self) -> str:
        """Address (without user info and query) and model name."""
        return f"openai:{self._endpoint.shown}:{self.ref.model}"

    @property
    def concurrency(self) -> int:
        """Requests in flight at once."""
        return max(1, self.ref.concurrency)

    @property
    def window(self) -> int:
        """Twice the concurrency, so that the next request is at hand when one finishes."""
        return 2 * self.concurrency

    def open(self) -> Session:
        """Start the event loop's thread.

        Raises:
            EndpointError: There is no usable key.
        """
        draw = random.Random(int(text_sha256(f"backoff:{self.identity}:{self.ref.seed}")[:16], 16))
        return OpenAISession(self.ref, self._endpoint, self.policy, draw, self._sleep)
