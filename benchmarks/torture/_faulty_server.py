"""A chat-completions server that fails in every way at random, cheap enough that its client is what is measured.

One asyncio protocol per connection, no framework, no parsing beyond what is needed; a process of its own.

`POST /v1/chat/completions` answers "answer to <last message>", or fails. `GET /control?share=0.05` sets the share of
requests that fail and answers with the counts so far, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from itertools import pairwise
from typing import Any

__all__ = ["COMPLETION_TOKENS", "KINDS", "PROMPT_TOKENS", "serve"]

PROMPT_TOKENS, COMPLETION_TOKENS = 20, 5
_USAGE = {"prompt_tokens": PROMPT_TOKENS, "completion_tokens": COMPLETION_TOKENS}
_GOOD = {"role": "assistant", "content": "x"}
_BODIES: tuple[Any, ...] = (
    [1, 2],
    "text",
    None,
    {},
    {"choices": []},
    {"choices": [None]},
    {"choices": [{"message": None}]},
    {"choices": [{"message": {"content": 7}}]},
    {"choices": {"0": {"message": _GOOD}}},
    {"error": {"message": "overloaded"}},
    {"choices": [{"message": {"role": "assistant", "content": ""}}], "usage": _USAGE},
    {"choices": [{"message": {"role": "assistant", "content": None}}], "usage": {"prompt_tokens": -1}},
    {"choices": [{"message": {"content": [{"type": "image"}]}}], "usage": {"prompt_tokens": 1e400}},
)
_GARBAGE = (b"<html>bad gateway</html>", b"", b"{", b"[" * 20_000, b"\x00\xff\xfe" * 50, b'{"choices": [{"message"')

KINDS = (
    "rate limit",
    "rate limit with a wait",
    "server error",
    "no answer",
    "half an answer",
    "reset",
    "cut off",
    "slow answer",
    "no HTTP",
    "garbage",
    "wrong schema",
    "answer twice",
    "answer twice, late",
)


class _State:
    def __init__(self, seed: int, delay_s: float) -> None:
        self.seed, self.delay_s, self.share = seed, delay_s, 0.0
        self.tries: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.requests = self.answers = self.tokens = self.in_flight = self.peak = 0

    def kind(self, row: str, attempt: int) -> str | None:
        """The fault of one attempt; the same for the same seed."""
        drawn = blake2b(f"{self.seed}:{attempt}:{row}".encode(), digest_size=8).digest()
        if int.from_bytes(drawn[:4], "big") >= self.share * 2**32:
            return None
        return KINDS[int.from_bytes(drawn[4:], "big") % len(KINDS)]

    def counts(self) -> dict[str, Any]:
        again = sum(count - 1 for count in self.answered.values() if count > 1)
        figures = ("requests", "answers", "tokens", "in_flight", "peak")
        return {name: getattr(self, name) for name in figures} | {"answered_again": again, "faults": dict(self.faults)}


class _Connection(asyncio.Protocol):
    def __init__(self, state: _State) -> None:
        self.state, self.buffer = state, b""
        self.loop = asyncio.get_running_loop()
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            line, body = self.buffer[:end].split(b"\r\n", 1)[0], self.buffer[end + 4 : end + 4 + length]
            self.buffer = self.buffer[end + 4 + length :]
            if line.startswith(b"GET"):
                self.control(line)
            else:
                self.asked(json.loads(body)["messages"][-1]["content"])

    def control(self, line: bytes) -> None:
        if b"share=" in line:
            self.state.share = float(line.split(b"share=")[1].split(b" ")[0].split(b"&")[0])
        self.send(json.dumps(self.state.counts()).encode())

    def asked(self, row: str) -> None:
        state = self.state
        state.requests += 1
        state.in_flight += 1
        state.peak = max(state.peak, state.in_flight)
        attempt = state.tries[row]
        state.tries[row] += 1
        kind = state.kind(row, attempt)
        if kind is not None:
            state.faults[kind] += 1
        self.later(state.delay_s, lambda: self.respond(row, kind, attempt))

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        if seconds:
            self.loop.call_later(seconds, what)
        else:
            what()

    def respond(self, row: str, kind: str | None, attempt: int) -> None:
        state, mixed = self.state, zlib.crc32(f"{row}:{attempt}".encode())
        state.in_flight -= 1
        if self.transport.is_closing():
            return
        if kind in (None, "slow answer", "answer twice", "answer twice, late"):
            self.answer(row, kind)
        elif kind == "rate limit":
            self.send(b'{"error": {"message": "slow down"}}', b"429 Too Many Requests")
        elif kind == "rate limit with a wait":
            wait = b"retry-after-ms: 200" if mixed % 2 else b"retry-after: 1"
            self.send(b'{"error": {"message": "slow down"}}', b"429 Too Many Requests", wait)
        elif kind == "server error":
            self.send(
                b"<html>oops</html>", (b"500 Error", b"502 Bad Gateway", b"503 Busy", b"529 Overloaded")[mixed % 4]
            )
        elif kind == "half an answer":
            self.transport.write(_head(b"200 OK", 400) + b'{"id": "chatcmpl-half')
        elif kind == "reset":
            raw = self.transport.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        elif kind == "cut off":
            self.transport.write(_head(b"200 OK", 400) + b'{"id": "chatcmpl-cut')
            self.transport.close()
        elif kind == "no HTTP":
            self.transport.write(b"\x16\x03\x01 220 ready\r\n\r\n" if mixed % 2 else b"HTTP/9.9 abc\r\n\r\n")
            self.transport.close()
        elif kind == "garbage":
            self.send(_GARBAGE[mixed % len(_GARBAGE)])
        elif kind == "wrong schema":
            body = _BODIES[mixed % len(_BODIES)]
            if isinstance(body, dict) and body.get("usage") == _USAGE:
                state.tokens += PROMPT_TOKENS + COMPLETION_TOKENS
            self.send(json.dumps(body).encode())

    def answer(self, row: str, kind: str | None) -> None:
        state = self.state
        state.answers += 1
        state.tokens += PROMPT_TOKENS + COMPLETION_TOKENS
        state.answered[row] += 1
        choice = {"index": 0, "message": {"role": "assistant", "content": f"answer to {row}"}, "finish_reason": "stop"}
        answer = {"id": f"chatcmpl-{state.answers:012d}", "object": "chat.completion", "created": 0, "model": "m"}
        body = json.dumps({**answer, "choices": [choice], "usage": _USAGE}).encode()
        whole = _head(b"200 OK", len(body)) + body
        if kind == "slow answer":
            cuts = [len(whole) * part // 6 for part in range(7)]
            for number, (start, end) in enumerate(pairwise(cuts)):
                self.loop.call_later(0.1 * number, self.transport.write, whole[start:end])
            return
        self.transport.write(whole * 2 if kind == "answer twice" else whole)
        if kind == "answer twice, late":
            self.loop.call_later(0.01, self.transport.write, whole)

    def send(self, body: bytes, status: bytes = b"200 OK", header: bytes = b"") -> None:
        self.transport.write(_head(status, len(body), header) + body)


def _head(status: bytes, length: int, header: bytes = b"") -> bytes:
    more = header + b"\r\n" if header else b""
    return b"HTTP/1.1 %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n" % (status, length, more)


def serve(seed: int, delay_s: float, port: Any) -> None:
    """Serve on a free port of the loopback, which goes into `port.value`, until the process is ended."""

    async def run() -> None:
        state = _State(seed, delay_s)
        server = await asyncio.get_running_loop().create_server(
            lambda: _Connection(state), "127.0.0.1", 0, backlog=1024
        )
        port.value = server.sockets[0].getsockname()[1]
        await server.serve_forever()

    asyncio.run(run())
