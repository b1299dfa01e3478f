"""The page's server as an attacker on the same machine or in another tab would meet it."""

from __future__ import annotations

import http.client
import json
import socket

import pytest

from optaware.data.review import read_labels, serving
from optaware.errors import InputError


@pytest.fixture
def server(open_review):
    with serving(open_review()) as running:
        yield running


def call(server, method, path, body=None, *, token=True, host=None, **headers):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    sent = {"Host": host if host is not None else f"127.0.0.1:{server.server_port}"}
    if token:
        sent["X-Review-Token"] = server.token if token is True else token
    if body is not None:
        sent["Content-Type"] = "application/json"
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    try:
        connection.request(method, path, data, {name: value for name, value in sent.items() if value is not None})
        reply = connection.getresponse()
        return reply.status, reply.headers, reply.read()
    finally:
        connection.close()


def first(server):
    return next(iter(server.review.pairs))


def test_it_listens_on_loopback_only(server):
    assert server.server_address[0] == "127.0.0.1"
    assert server.url.startswith("http://127.0.0.1:")
    assert len(server.token) >= 32
    assert server.url.endswith("#" + server.token)


def test_the_page_holds_no_data_and_forbids_what_it_does_not_need(server):
    for path in ("/", "/app.js", "/style.css"):
        status, headers, body = call(server, "GET", path, token=False)
        assert status == 200
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        text = body.decode()
        assert server.token not in text
        assert "baker" not in text
        assert "http://" not in text
        assert "https://" not in text
        assert "innerHTML" not in text


@pytest.mark.parametrize("path", ["/api/state", "/api/pair?id=x", "/api/export", "/api/no-such"])
@pytest.mark.parametrize("token", [False, "wrong", "é"])
def test_data_needs_the_token(server, path, token):
    token = token if token is False else token.encode("utf-8").decode("latin-1")
    status, _, body = call(server, "GET", path, token=token)
    assert status == 403
    assert b"baker" not in body


def test_another_host_name_is_refused_even_with_the_token(server):
    for host in ("evil.example", f"evil.example:{server.server_port}", "127.0.0.1", ""):
        assert call(server, "GET", "/", host=host)[0] == 421
        assert call(server, "GET", "/api/state", host=host)[0] == 421
    assert call(server, "GET", "/api/state", host=f"localhost:{server.server_port}")[0] == 200


@pytest.mark.parametrize(
    "more",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Content_Type": "text/plain"},
        {"Content_Type": "application/x-www-form-urlencoded"},
        {"token": False},
    ],
)
def test_posts_that_a_foreign_page_could_make_change_nothing(server, more, tmp_path):
    status, _, _ = call(server, "POST", "/api/label", {"id": first(server), "answer": "same"}, **more)
    assert status in (403, 415)
    assert not read_labels(tmp_path / "labels.jsonl")


def test_a_label_goes_to_disk_and_undo_takes_it_back(server, tmp_path):
    origin = f"http://127.0.0.1:{server.server_port}"
    body = {"id": first(server), "answer": "not the same", "faults": ["role"], "note": "n", "seconds": 2.5}
    status, _, reply = call(server, "POST", "/api/label", body, Origin=origin, Sec_Fetch_Site="same-origin")
    assert status == 200
    assert json.loads(reply)["item"]["faults"] == ["role"]
    assert [label.note for label in read_labels(tmp_path / "labels.jsonl")] == ["n"]
    exported = call(server, "GET", "/api/export")[2].decode().splitlines()
    assert [json.loads(line)["answer"] for line in exported] == ["not the same"]
    assert json.loads(call(server, "POST", "/api/undo", {})[2])["item"]["answer"] is None
    assert json.loads(call(server, "POST", "/api/undo", {})[2])["item"] is None
    assert call(server, "GET", "/api/export")[2] == b""


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"\xff", 400),
        (b"[" * 5000, 400),
        (b"x" * 70_000, 413),
        ([], 400),
        ({"id": "x", "answer": "same"}, 400),
        ({"id": "x", "answer": "maybe"}, 400),
        ({"id": "x", "answer": "same", "faults": ["meaning"]}, 400),
        ({"id": "x", "answer": "same", "note": "n" * 5000}, 400),
        ({"id": "x", "answer": "same", "labeller": "someone else"}, 400),
        ({"id": "x", "answer": "same", "seconds": -1}, 400),
    ],
)
def test_malformed_posts_are_refused_with_a_reason(server, body, status, tmp_path):
    got, _, reply = call(server, "POST", "/api/label", body)
    assert got == status
    assert json.loads(reply)["error"]
    assert not read_labels(tmp_path / "labels.jsonl")


def test_other_methods_and_addresses_do_not_exist(server):
    assert call(server, "GET", "/../pyproject.toml", token=False)[0] == 403
    assert call(server, "GET", "/page/app.js")[0] == 404
    assert call(server, "POST", "/api/state", {})[0] == 404
    assert call(server, "DELETE", "/api/label")[0] == 501


def test_a_silent_connection_does_not_hold_up_others(server):
    with socket.create_connection(("127.0.0.1", server.server_port)):
        assert call(server, "GET", "/api/state")[0] == 200


def test_two_servers_have_two_tokens_and_a_taken_port_is_said(open_review, server, tmp_path):
    other = open_review(path=tmp_path / "other.jsonl")
    with serving(other) as second:
        assert second.token != server.token
        assert call(second, "GET", "/api/state", token=server.token)[0] == 403
    with pytest.raises(InputError) as error, serving(other, server.server_port):
        pass
    assert error.value.code == "port-unusable"
