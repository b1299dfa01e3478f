"""Connections that carry one answer at a time, so that no answer can reach another request."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx2

__all__ = ["drop", "keep_in_step"]


async def keep_in_step(response: httpx2.Response) -> None:
    """A client's response hook: closes a connection on which more than the answer came in.

    HTTP/1.1 matches answers to requests by order alone. A proxy that sends an answer twice puts all later ones on that
    connection out of step: each request would be given the answer of the one before it, without any error. What came
    in behind the answer lies in the HTTP parser's buffer, where the connection pool does not look.
    """
    if isinstance(response.stream, httpx2.AsyncByteStream):
        response.stream = _Watched(response.stream, response.extensions)


class _Watched(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream, extensions: Mapping[str, Any]) -> None:
        self._inner, self._extensions = inner, extensions

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._inner:
            yield part
        # The answer is complete and the connection not yet free: nobody else can be on it.
        if _surplus(self._inner):
            await drop(self._extensions)

    async def aclose(self) -> None:
        await self._inner.aclose()


def _surplus(stream: Any) -> bool:
    """Whether the parser of an HTTP/1.1 connection holds bytes behind the answer; False where it cannot be seen.

    The way to the parser is httpx2's own; a test fails when it changes.
    """
    while stream is not None and not hasattr(stream, "_h11_state"):
        inward = (getattr(stream, name, None) for name in ("_httpcore_stream", "_stream", "_connection"))
        stream = next((part for part in inward if part is not None), None)
    return stream is not None and bool(stream._h11_state.trailing_data[0])


async def drop(extensions: Mapping[str, Any]) -> None:
    """Close the connection that an answer came by; the pool finds it closed and takes another."""
    if (connection := extensions.get("network_stream")) is not None:
        await connection.aclose()
