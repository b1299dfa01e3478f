"""Every way in which an endpoint can fail, and what becomes of the rows."""

from __future__ import annotations

import asyncio
import email.utils
import json
import random
import socket
import threading
import time

import pytest

from optaware.errors import EndpointError
from optaware.llm._retry import RetryPolicy, is_retryable, retry_after_s


def replies_by_key(replies):
    found = list(replies)
    assert len({reply.key for reply in found}) == len(found)
    assert all((reply.text is None) != (reply.error is None) for reply in found)
    return {reply.key: reply for reply in found}


PASSING = {
    "rate limit": {"status": 429},
    "rate limit with seconds": {"status": 429, "headers": {"retry-after": "2"}},
    "request timeout": {"status": 408},
    "conflict": {"status": 409},
    "too early": {"status": 425},
    "server error": {"status": 500},
    "overloaded": {"status": 529},
    "error page": {"status": 502, "body": b"<html>bad gateway</html>"},
    "reset": {"reset": True},
    "truncated": {"truncate": True},
    "not json": {"body": b"<html>hello</html>"},
    "empty body": {"body": b""},
    "json of the wrong kind": {"body": b"[1, 2]"},
    "no choices": {"body": b'{"choices": []}'},
    "null choice": {"body": b'{"choices": [null]}'},
    "error with status 200": {"body": b'{"error": {"message": "overloaded"}}'},
    "empty text": {"message": {"role": "assistant", "content": ""}},
    "null text": {"message": {"role": "assistant", "content": None}},
}


@pytest.mark.parametrize("kind", PASSING)
def test_a_fault_that_passes_costs_a_retry_and_no_row(kind, loopback, chat, asks, waits):
    fault = loopback.Fault(**PASSING[kind])
    failed: set[str] = set()

    def first_time(_, body):
        text = body["messages"][-1]["content"]
        if text in failed:
            return None
        failed.add(text)
        return fault

    with loopback.LoopbackServer(fault=first_time) as server:
        model = chat(server.base_url)
        replies = replies_by_key(model.complete(asks(5)))
        assert {key: reply.text for key, reply in replies.items()} == {
            f"k{i}": f"reply to: question {i}" for i in range(5)
        }
        assert {reply.attempts for reply in replies.values()} == {2}
        assert server.count == 10
        assert model.totals.retries == 5
        assert waits.seconds


LASTING = {
    "rate limit": ({"status": 429}, "http-429", 7),
    "server error": ({"status": 503}, "http-503", 7),
    "reset": ({"reset": True}, "connection", 7),
    "truncated": ({"truncate": True}, "connection", 7),
    "not json": ({"body": b"<html>"}, "bad-body", 3),
    "not json, deeply": ({"body": b"[" * 100_000}, "bad-body", 3),
    "empty text": ({"message": {"role": "assistant", "content": "  "}}, "empty-reply", 3),
    "prompt too long": (
        {"status": 400, "body": b'{"error": {"message": "This model\'s maximum context length is 8 tokens"}}'},
        "http-400",
        1,
    ),
}


@pytest.mark.parametrize("kind", LASTING)
def test_a_fault_that_lasts_becomes_an_error_of_its_row_alone(kind, loopback, chat, asks):
    parts, code, attempts = LASTING[kind]
    fault = loopback.Fault(**parts)
    with loopback.LoopbackServer(fault=lambda _, body: fault if "question 3" in str(body) else None) as server:
        replies = replies_by_key(chat(server.base_url).complete(asks(6)))
        assert len(replies) == 6
        assert (replies["k3"].error_code, replies["k3"].attempts) == (code, attempts)
        assert sum(reply.error is not None for reply in replies.values()) == 1
        assert server.count == 5 + attempts


def test_a_request_without_answer_is_given_up_after_its_time_limit(loopback, chat, asks):
    hang = loopback.Fault(hang=True)
    with loopback.LoopbackServer(fault=lambda _, body: hang if "question 1" in str(body) else None) as server:
        replies = replies_by_key(chat(server.base_url, timeout_s=0.15, max_retries=1).complete(asks(3)))
    assert (replies["k1"].error_code, replies["k1"].attempts) == ("timeout", 2)
    assert replies["k0"].text
    assert replies["k2"].text


def test_the_time_limit_holds_for_the_whole_answer_however_it_trickles_in(loopback, chat, asks):
    with loopback.LoopbackServer(fault=lambda *_: loopback.Fault(trickle_s=0.005)) as server:
        (reply,) = chat(server.base_url, timeout_s=0.2, max_retries=0).complete(asks(1))
    assert reply.error_code == "timeout"


def test_a_refusal_is_recorded_and_kept(loopback, chat, asks, tmp_path):
    from optaware.llm import ReplyCache

    says_no = loopback.Fault(message={"role": "assistant", "content": None, "refusal": "I cannot help with that."})
    filtered = loopback.Fault(message={"role": "assistant", "content": None}, finish_reason="content_filter")
    faults = {"question 0": says_no, "question 1": filtered}
    with loopback.LoopbackServer(fault=lambda _, body: faults.get(body["messages"][-1]["content"])) as server:
        for attempt in range(2):
            model = chat(server.base_url, parts={"cache": ReplyCache(tmp_path)})
            replies = replies_by_key(model.complete(asks(3)))
            assert [replies[f"k{i}"].error_code for i in range(3)] == ["refusal", "refusal", None]
            assert "I cannot help with that." in replies["k0"].error
            assert replies["k0"].cached is bool(attempt)
        assert server.count == 3


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 405, 422])
def test_a_refused_set_up_stops_the_run_at_once(status, loopback, chat, asks):
    with loopback.LoopbackServer(fault=lambda *_: loopback.Fault(status=status)) as server:
        with pytest.raises(EndpointError) as caught:
            list(chat(server.base_url, concurrency=2).complete(asks(100)))
        assert server.count <= 4
        text = str(caught.value)
        assert f"answered {status}" in text
        assert server.base_url in text
        if status in (401, 403):
            assert "TEST_CHAT_KEY" in text
        if status == 404:
            assert "base_url" in text
            assert "'m'" in text


def test_a_spent_quota_is_not_waited_for(loopback, chat, asks):
    body = json.dumps({"error": {"message": "You exceeded your quota", "code": "insufficient_quota"}}).encode()
    with loopback.LoopbackServer(fault=lambda *_: loopback.Fault(status=429, body=body)) as server:
        with pytest.raises(EndpointError, match="quota is spent"):
            list(chat(server.base_url, concurrency=1).complete(asks(10)))
        assert server.count <= 2


def test_finished_rows_are_kept_when_the_set_up_breaks_midway(loopback, chat, asks, tmp_path):
    from optaware.llm import ReplyCache

    with loopback.LoopbackServer(fault=lambda n, _: loopback.Fault(status=401) if n > 10 else None) as server:
        got = []
        with pytest.raises(EndpointError, match="401"):
            got.extend(chat(server.base_url, parts={"cache": ReplyCache(tmp_path)}, concurrency=4).complete(asks(100)))
        assert server.answered == 10
        assert len(ReplyCache(tmp_path)) == 10


@pytest.mark.parametrize("header", ["seconds", "date", "milliseconds"])
def test_retry_after_is_honoured_by_all_requests(header, loopback, chat, asks, waits):
    headers = {
        "seconds": {"retry-after": "30"},
        "date": {"retry-after": email.utils.formatdate(time.time() + 30, usegmt=True)},
        "milliseconds": {"retry-after-ms": "30000"},
    }[header]
    fault = loopback.Fault(status=429, headers=headers)
    with loopback.LoopbackServer(fault=lambda n, _: fault if n == 1 else None) as server:
        replies = replies_by_key(chat(server.base_url, concurrency=1).complete(asks(3)))
        assert all(reply.text for reply in replies.values())
    # The one that was told to wait, and those that would have gone out meanwhile.
    assert len(waits.seconds) == 3
    assert all(25 < seconds < 31 for seconds in waits.seconds)


def test_an_endless_wait_is_not_waited_for(loopback, chat, asks):
    fault = loopback.Fault(status=503, headers={"retry-after": "86400"})
    with loopback.LoopbackServer(fault=lambda *_: fault) as server, pytest.raises(EndpointError, match="wait 86400 s"):
        list(chat(server.base_url, concurrency=1).complete(asks(10)))


def test_retry_after_in_all_its_forms():
    now = 1_000_000_000.0
    assert retry_after_s({"retry-after": "1.5"}, now) == 1.5
    assert retry_after_s({"retry-after-ms": "250", "retry-after": "9"}, now) == 0.25
    assert retry_after_s({"retry-after": "-3"}, now) == 0.0
    assert retry_after_s({"retry-after": email.utils.formatdate(now + 7, usegmt=True)}, now) == pytest.approx(7, abs=1)
    assert retry_after_s({"retry-after": email.utils.formatdate(now - 7, usegmt=True)}, now) == 0.0
    for nonsense in ("soon", "nan", "inf", ""):
        assert retry_after_s({"retry-after": nonsense}, now) is None
    assert retry_after_s({}, now) is None


def test_back_off_grows_is_capped_jittered_and_drawn_from_its_own_generator():
    policy = RetryPolicy(base_s=1.0, cap_s=8.0)
    draws = [[policy.backoff_s(attempt, random.Random(seed)) for seed in range(200)] for attempt in range(1, 8)]
    for attempt, waits in enumerate(draws, start=1):
        bound = min(8.0, 2.0 ** (attempt - 1))
        assert 0.0 <= min(waits) < 0.1 * bound
        assert 0.9 * bound < max(waits) <= bound
    assert policy.backoff_s(10_000, random.Random(0)) <= 8.0


def test_what_is_retryable():
    assert {status for status in range(300, 600) if is_retryable(status)} == {408, 409, 425, 429, *range(500, 600)}


def test_a_dead_endpoint_is_found_out_before_the_rows_are_read(chat, asks, waits):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{probe.getsockname()[1]}/v1"
    taken = []

    def rows():
        for ask in asks(1000):
            taken.append(ask.key)
            yield ask

    # So many retries that only the start-up limit can end it soon.
    model = chat(url, concurrency=4, max_retries=2000, policy={"startup_s": 0.2})
    with pytest.raises(EndpointError, match="endpoint-unreachable") as caught:
        list(model.complete(rows()))
    assert len(waits.seconds) < 2000
    assert max(waits.seconds) <= 0.2 / 4
    assert url in str(caught.value)
    assert len(taken) == 8


def test_an_endpoint_that_dies_midway_stops_the_run_instead_of_failing_every_row(loopback, chat, asks):
    with loopback.LoopbackServer(fault=lambda n, _: loopback.Fault(status=503) if n > 5 else None) as server:
        got = []
        model = chat(server.base_url, policy={"give_up_after": 4}, concurrency=2, max_retries=1)
        with pytest.raises(EndpointError, match="endpoint-gone"):
            got.extend(model.complete(asks(500)))
        assert sum(reply.text is not None for reply in got) == 5
        assert len(got) < 20


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_every_row_is_accounted_for_under_a_storm_of_faults(share, loopback, chat, asks):
    draw = random.Random(7)
    kinds = [loopback.Fault(**parts) for parts in PASSING.values()]

    def storm(*_):
        return draw.choice(kinds) if draw.random() < share else None

    with loopback.LoopbackServer(fault=storm) as server:
        model = chat(server.base_url, concurrency=8, max_retries=3)
        replies = replies_by_key(model.complete(asks(200)))
        assert set(replies) == {f"k{i}" for i in range(200)}
        for i in range(200):
            reply = replies[f"k{i}"]
            assert reply.text in (None, f"reply to: question {i}")
        assert server.count == sum(reply.attempts for reply in replies.values())
        assert model.totals.replies == model.totals.calls == 200


def test_an_endpoint_that_knows_only_max_completion_tokens_or_no_seed_is_still_served(loopback, chat, asks):
    def newer(_, body):
        if "max_tokens" in body:
            said = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
            return loopback.Fault(status=400, body=json.dumps({"error": {"message": said}}).encode())
        if "seed" in body:
            return loopback.Fault(status=422, body=b'{"detail": "Extra inputs are not permitted: seed"}')
        return None

    with loopback.LoopbackServer(fault=newer) as server:
        replies = replies_by_key(chat(server.base_url, concurrency=2).complete(asks(6)))
        assert all(reply.text for reply in replies.values())
        assert server.requests[-1]["body"]["max_completion_tokens"] == 16


def test_text_that_is_no_unicode_is_an_error_of_its_row(loopback, chat, asks):
    with loopback.LoopbackServer(answer=lambda body: "a\ud800b") as server:
        replies = replies_by_key(chat(server.base_url).complete(asks(["fine", "lone \ud800 surrogate"])))
        assert replies["k0"].text == "a\ufffdb"
        assert replies["k1"].error_code == "bad-request"


class Twice:
    """A server that sends some answers twice on their connection: at once, or a moment later."""

    def __init__(self, late_s: float, name: str) -> None:
        self.late_s, self.name, self.sent = late_s, name, 0

    def answer(self, row: str) -> bytes:
        self.sent += 1
        body = {"id": self.name.format(self.sent), "choices": [{"message": {"content": f"reply to: {row}"}}]}
        data = json.dumps(body).encode()
        return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(data) + data

    async def connected(self, reader, writer):
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"-length" in line)
                row = json.loads(await reader.readexactly(length))["messages"][-1]["content"]
                answer = self.answer(row)
                writer.write(answer)
                if row.endswith(("3", "7")) and self.late_s == 0.0:
                    writer.write(answer)
                elif row.endswith(("3", "7")):
                    asyncio.get_running_loop().call_later(self.late_s, writer.write, answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def __enter__(self) -> str:
        self.loop, self.ready = asyncio.new_event_loop(), threading.Event()
        self.thread = threading.Thread(target=self.loop.run_until_complete, args=(self.serve(),))
        self.thread.start()
        self.ready.wait()
        return f"http://127.0.0.1:{self.port}/v1"

    async def serve(self) -> None:
        self.stop = asyncio.Event()
        server = await asyncio.start_server(self.connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self.ready.set()
        await self.stop.wait()
        server.close()

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self.stop.set)
        self.thread.join()
        self.loop.run_until_complete(self.end())
        self.loop.close()

    async def end(self) -> None:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


@pytest.mark.parametrize(("late_s", "name"), [(0.0, "chatcmpl-{:08d}"), (0.0, "x"), (0.0005, "chatcmpl-{:08d}")])
def test_an_answer_that_is_sent_twice_reaches_no_other_row(late_s, name, loopback, chat, asks):
    """HTTP tells answers apart by their order alone: one too many would give every later row its neighbour's."""
    with Twice(late_s, name) as url:
        replies = replies_by_key(chat(url, concurrency=4).complete(asks(300)))
    assert {key: reply.text for key, reply in replies.items()} == {
        f"k{i}": f"reply to: question {i}" for i in range(300)
    }


def test_an_endpoint_that_names_all_answers_alike_is_believed_in_the_end(loopback, chat, asks):
    body = b'{"id": "chatcmpl-constant", "choices": [{"message": {"content": "same"}}]}'
    with loopback.LoopbackServer(fault=lambda *_: loopback.Fault(body=body)) as server:
        replies = replies_by_key(chat(server.base_url, concurrency=1).complete(asks(40)))
        assert {reply.text for reply in replies.values()} == {"same"}
        assert server.count == 40 + 8  # each of the first eight repetitions is asked for once more


@pytest.mark.parametrize("turned_away", [1, 2])
def test_one_request_told_to_wait_does_not_hold_up_the_others_but_two_in_a_row_do(
    turned_away, loopback, chat, asks, waits
):
    first_two = threading.Barrier(2, timeout=30)
    fault = loopback.Fault(status=429, headers={"retry-after": "30"})

    def script(number, _):
        if number <= 2:
            first_two.wait()  # both are on their way before either is answered
        elif turned_away == 2:  # nor is a third answered between the two, however busy the machine is
            ends = time.monotonic() + 30
            while len(long_waits(waits)) < 2 and time.monotonic() < ends:
                time.sleep(0.001)
        return fault if number <= turned_away else None

    with loopback.LoopbackServer(fault=script) as server:
        replies = replies_by_key(chat(server.base_url, concurrency=2).complete(asks(6)))
        assert all(reply.text for reply in replies.values())
    # Alone, it waits itself; two shut the gate, at which the rest waits too.
    long = len(long_waits(waits))
    assert long == 1 if turned_away == 1 else long > 2


def long_waits(waits):
    return [seconds for seconds in waits.seconds if seconds > 25]


def test_no_text_reaches_the_wire_as_a_control_token(loopback, chat, asks):
    marks = [
        "<|im_end|>\n<|im_start|>system",
        "</s>[INST] x [/INST]",
        "<<SYS>>x<</SYS>>",
        "<end_of_turn>",
        "<｜User｜>x",
    ]
    plain = ["a < b and <b>bold</b> [1]", "x <| y |> z", "List[int]"]
    with loopback.LoopbackServer() as server:
        list(chat(server.base_url, concurrency=1).complete(asks(marks + plain)))
        sent = server.contents()
    for text, said in zip(marks, sent, strict=False):
        assert said != text
        assert said.replace(" ", "") == text.replace(" ", "")
        assert not any(mark in said for mark in ("<|", "</s>", "[INST]", "<<SYS", "<end_of_turn>", "<｜"))
    assert sent[len(marks) :] == plain
