"""A loopback server that speaks the OpenAI chat-completions protocol and can be told to fail in every way.

A plain module: tests get it through the `loopback` fixture (tests/llm/conftest.py), or load it by path:

    spec = importlib.util.spec_from_file_location("loopback", Path(__file__).parents[1] / "loopback.py")

A fault is a `Fault`, or a function `(call_number, body) -> Fault | None`. `server.requests` holds every request that
arrived (path, headers, parsed body); `server.answered` counts completions that were sent out whole and thus "paid".
"""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

__all__ = ["Fault", "LoopbackServer"]


@dataclass(frozen=True)
class Fault:
    """What to do with one request instead of, or besides, answering it.

    Attributes:
        status: Answer with this status and `body`.
        headers: Further response headers.
        body: Raw bytes of the response; by default an OpenAI-style error.
        reset: Close the connection with a TCP reset before any answer.
        truncate: Promise more bytes than are sent, then close.
        trickle_s: Send the body byte by byte with this pause, so that no single read takes long.
        hang: Do not answer until the server is closed or `release` is set.
        message: Replaces `choices[0].message` of an ordinary answer.
        finish_reason: Of an ordinary answer.
        usage: Of an ordinary answer; None leaves the field out.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    reset: bool = False
    truncate: bool = False
    trickle_s: float = 0.0
    hang: bool = False
    message: dict[str, Any] | None = None
    finish_reason: str = "stop"
    usage: dict[str, int] | None = field(default_factory=lambda: {"prompt_tokens": 10, "completion_tokens": 5})


Script = Callable[[int, dict[str, Any]], Fault | None]
Answer = Callable[[dict[str, Any]], str]


def _echo(body: dict[str, Any]) -> str:
    return "reply to: " + body["messages"][-1]["content"]


class LoopbackServer:
    """Serves `http://127.0.0.1:<port>/v1/chat/completions` from threads; use as a context manager.

    Args:
        answer: Text of an ordinary reply, from the request's JSON; by default it repeats the last message.
        fault: See the module; asked once per request, in order of arrival.
    """

    def __init__(self, answer: Answer = _echo, fault: Script | None = None) -> None:
        self.answer, self.fault = answer, fault
        self.requests: list[dict[str, Any]] = []
        self.answered = 0
        self.in_flight = 0
        self.peak_in_flight = 0
        self.connections = 0
        self.release = threading.Event()
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.loopback = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)

    @property
    def base_url(self) -> str:
        """What goes into `ChatModelRef.base_url`."""
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def count(self) -> int:
        """How many requests arrived."""
        return len(self.requests)

    def contents(self) -> list[str]:
        """Last message of every request that arrived."""
        return [request["body"]["messages"][-1]["content"] for request in self.requests]

    def __enter__(self) -> LoopbackServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let hanging requests go and stop."""
        self.release.set()
        self._server.shutdown()
        self._server.close_all()
        self._server.server_close()
        self._thread.join()

    def arrived(self, request: dict[str, Any]) -> Fault:
        """Note a request and decide what happens to it."""
        with self._lock:
            self.requests.append(request)
            self.in_flight += 1
            self.peak_in_flight = max(self.peak_in_flight, self.in_flight)
            number = len(self.requests)
        return (self.fault(number, request["body"]) if self.fault else None) or Fault()

    def left(self, answered: bool) -> None:
        """Note the end of a request."""
        with self._lock:
            self.in_flight -= 1
            self.answered += answered


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True
    request_queue_size = 256
    loopback: LoopbackServer

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._open: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        self.loopback.connections += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def close_all(self) -> None:
        """Wake handlers that wait for the next request on a kept-alive connection."""
        for connection in list(self._open):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that go away are part of the tests."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        loopback = self.server.loopback
        fault = loopback.arrived({"path": self.path, "headers": dict(self.headers), "body": body})
        answered = False
        try:
            answered = self._respond(fault, body)
        finally:
            loopback.left(answered)

    def _respond(self, fault: Fault, body: dict[str, Any]) -> bool:
        loopback = self.server.loopback
        if fault.hang:
            loopback.release.wait()
        if fault.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()
            self.close_connection = True
            return False
        data = fault.body
        if data is None:
            data = json.dumps(self._error(fault) if fault.status != 200 else self._completion(fault, body)).encode()
        self.send_response(fault.status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data) + (100 if fault.truncate else 0)))
        for name, value in fault.headers.items():
            self.send_header(name, value)
        self.end_headers()
        for start in range(len(data)) if fault.trickle_s else ():
            self.wfile.write(data[start : start + 1])
            loopback.release.wait(fault.trickle_s)
        self.wfile.write(b"" if fault.trickle_s else data)
        if fault.truncate:
            self.close_connection = True
        return fault.status == 200 and fault.body is None and not fault.truncate

    def _error(self, fault: Fault) -> dict[str, Any]:
        return {"error": {"message": f"scripted fault {fault.status}", "type": "scripted", "code": None}}

    def _completion(self, fault: Fault, body: dict[str, Any]) -> dict[str, Any]:
        message = fault.message
        if message is None:
            message = {"role": "assistant", "content": self.server.loopback.answer(body)}
        choice = {"index": 0, "message": message, "finish_reason": fault.finish_reason}
        answer = {"id": "x", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice]}
        return answer if fault.usage is None else {**answer, "usage": fault.usage}
