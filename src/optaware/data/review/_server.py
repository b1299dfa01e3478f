"""The review page's server: loopback only, one token, and nothing that another page could make the browser do."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from threading import Thread
from typing import Annotated, Any, Literal
from urllib.parse import parse_qs, urlsplit

from pydantic import Field

from optaware._io import dumps
from optaware.data.review._session import Review
from optaware.errors import InputError, OptawareError, StorageError
from optaware.records import Fault, Record, parse_record

__all__ = ["ReviewServer", "serving"]

_HOST = "127.0.0.1"
_LONGEST_BODY = 64 * 1024
_FILES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
}
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class _LabelRequest(Record):
    """Body of `POST /api/label`."""

    id: str
    answer: Literal["same", "not the same", "skipped"]
    faults: tuple[Fault, ...] = ()
    note: Annotated[str, Field(max_length=4000)] = ""
    seconds: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None


class _Refused(Exception):
    def __init__(self, status: HTTPStatus, why: str) -> None:
        self.status, self.why = status, why
        super().__init__(why)


class ReviewServer(ThreadingHTTPServer):
    """Serves one `Review` on the loopback interface.

    The page itself (`/`, its script and its style) holds no data. Whatever holds data or changes it lies under `/api/`
    and needs the token, in a header that a page of another site cannot set; the token reaches the page in the fragment
    of `url`, which browsers do not send. Requests whose `Host` is not this server's (DNS rebinding) and posts from
    another origin are refused.

    Args:
        review: What is reviewed.
        port: TCP port; 0: any free one.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, review: Review, port: int = 0) -> None:
        self.review = review
        self.token = secrets.token_urlsafe(24)
        try:
            super().__init__((_HOST, port), _Handler)
        except (OSError, OverflowError) as error:
            raise InputError.of(
                "port-unusable", f"port {port}", str(error), "Give another one, or none: any free one is taken."
            ) from error
        self.hosts = {f"{name}:{self.server_port}" for name in (_HOST, "localhost")}

    @property
    def url(self) -> str:
        """Address of the page, with the token."""
        return f"http://{_HOST}:{self.server_port}/#{self.token}"


@contextmanager
def serving(review: Review, port: int = 0) -> Iterator[ReviewServer]:
    """Serve `review` from a thread while the block runs."""
    server = ReviewServer(review, port)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.1}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    server_version = "optaware"
    sys_version = ""
    timeout = 30  # a connection that says nothing is dropped

    def do_GET(self) -> None:
        self._answer(self._get)

    def do_POST(self) -> None:
        self._answer(self._post)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the terminal belongs to the person, and addresses may hold ids."""

    def _answer(self, work: Callable[[str, dict[str, list[str]]], tuple[str, bytes]]) -> None:
        try:
            if self.headers.get("Host", "") not in self.server.hosts:
                raise _Refused(HTTPStatus.MISDIRECTED_REQUEST, "this server answers to its own address only")
            address = urlsplit(self.path)
            kind, body = work(address.path, parse_qs(address.query))
            status = HTTPStatus.OK
        except _Refused as error:
            status, kind, body = error.status, *_json({"error": error.why})
        except StorageError as error:
            status, kind, body = HTTPStatus.INSUFFICIENT_STORAGE, *_json({"error": str(error)})
        except OptawareError as error:
            status, kind, body = HTTPStatus.BAD_REQUEST, *_json({"error": str(error)})
        self.send_response(status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _get(self, path: str, query: dict[str, list[str]]) -> tuple[str, bytes]:
        if path in _FILES:
            name, kind = _FILES[path]
            return kind, files("optaware.data.review").joinpath("page", name).read_bytes()
        self._check_token()
        review = self.server.review
        if path == "/api/state":
            return _json(review.state())
        if path == "/api/pair":
            return _json(review.pair(query.get("id", [""])[0]))
        if path == "/api/export":
            lines = "".join(dumps(label.to_json()) + "\n" for label in review.labels())
            return "application/x-ndjson; charset=utf-8", lines.encode("utf-8", "surrogatepass")
        raise _Refused(HTTPStatus.NOT_FOUND, "there is nothing at this address")

    def _post(self, path: str, query: dict[str, list[str]]) -> tuple[str, bytes]:
        del query
        origin = self.headers.get("Origin")
        if origin is not None and origin not in {f"http://{host}" for host in self.server.hosts}:
            raise _Refused(HTTPStatus.FORBIDDEN, "posts from other pages are refused")
        if self.headers.get("Sec-Fetch-Site", "same-origin") != "same-origin":
            raise _Refused(HTTPStatus.FORBIDDEN, "posts from other sites are refused")
        if self.headers.get_content_type() != "application/json":
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the body is JSON")
        self._check_token()
        review, body = self.server.review, self._body()
        if path == "/api/label":
            asked = parse_record(_LabelRequest, body, "request")
            done = review.label(asked.id, asked.answer, faults=asked.faults, note=asked.note, seconds=asked.seconds)
            return _json(done)
        if path == "/api/undo":
            return _json(review.undo())
        raise _Refused(HTTPStatus.NOT_FOUND, "there is nothing at this address")

    def _check_token(self) -> None:
        given = self.headers.get("X-Review-Token", "")
        if not secrets.compare_digest(given.encode("utf-8", "replace"), self.server.token.encode()):
            raise _Refused(HTTPStatus.FORBIDDEN, "the token is missing or wrong: open the address in the terminal")

    def _body(self) -> Any:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "the length of the body is needed")
        if int(length) > _LONGEST_BODY:
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "the body is too long")
        try:
            return json.loads(self.rfile.read(int(length)).decode("utf-8"))
        except (ValueError, RecursionError) as error:
            raise _Refused(HTTPStatus.BAD_REQUEST, "the body is not JSON") from error


def _json(value: Any) -> tuple[str, bytes]:
    return "application/json; charset=utf-8", dumps(value).encode("utf-8", "replace")
