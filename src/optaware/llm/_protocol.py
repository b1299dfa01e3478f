"""What a chat model is, seen from outside (`ChatModel`) and from within this package (`Provider`, `Session`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from optaware._io import canonical_json, text_sha256
from optaware.errors import OptawareError
from optaware.records import ChatReply, ChatRequest

__all__ = ["REQUEST_VERSION", "ChatModel", "Done", "Provider", "Session", "request_id"]

REQUEST_VERSION = 1
"""Raised when the meaning of a hashed field changes, so that old cached replies are not mistaken for new ones."""


@runtime_checkable
class ChatModel(Protocol):
    """Answers chat requests. Other packages use this and nothing else."""

    @property
    def identity(self) -> str:
        """What makes the replies this model's own: part of the cache key, and free of secrets."""

    def complete(self, requests: Iterable[ChatRequest]) -> Iterator[ChatReply]:
        """Answer every request with exactly one reply, in any order.

        `requests` is read lazily, in the caller's thread, a bounded number ahead of the replies; so both ends may be
        streams of any length. Closing the iterator early cancels what is in flight and keeps what is finished.

        Raises:
            EndpointError: The endpoint cannot be used at all; faults of single rows come as replies with `error`.
            BudgetExhausted: After the last reply, when requests were left because the budget is spent.
        """


def request_id(identity: str, request: ChatRequest) -> str:
    """SHA-256 (hexadecimal) of a request's content and the model's identity; the caller's `key` has no part in it."""
    content = request.to_json()
    del content["key"]
    return text_sha256(canonical_json({"request_version": REQUEST_VERSION, "identity": identity, **content}))


@dataclass(frozen=True)
class Done:
    """The end of one submitted request.

    Attributes:
        request_id: Which one.
        reply: Text or an error of this row (`key` is empty: the driver fills it in); None when `stop` is set.
        stop: Why no further request can succeed; the run ends with it.
        billed_tokens: Tokens to charge against a budget when the reply does not say (an estimate), else None.
    """

    request_id: str
    reply: ChatReply | None
    stop: OptawareError | None = None
    billed_tokens: int | None = None


class Session(Protocol):
    """One run of a provider. All methods are called from one thread."""

    def submit(self, request_id: str, request: ChatRequest) -> None:
        """Take a request on; returns at once."""

    def wait(self, timeout_s: float | None = None) -> Done | None:
        """Block until one submitted request is finished; None when `timeout_s` passes first."""

    def close(self) -> list[Done]:
        """Cancel what is not finished, free everything, and return what was finished but not yet taken."""


class Provider(Protocol):
    """Where replies come from; `Chat` puts cache, budget and accounting around it."""

    @property
    def identity(self) -> str:
        """See `ChatModel.identity`."""

    @property
    def window(self) -> int:
        """How many requests a session wants to have on its hands at once."""

    @property
    def concurrency(self) -> int:
        """How many of them are worked on at once (at most `window`)."""

    def open(self) -> Session:
        """Start a session; called only when there is a request that the cache does not answer."""
