"""Replies survive kills, torn lines and neighbours; nothing is paid twice; secrets are nowhere."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections import Counter
from types import SimpleNamespace

import pytest

from optaware._io import text_sha256
from optaware.errors import EndpointError, StorageError
from optaware.llm import Chat, ReplyCache, open_chat, request_id
from optaware.llm._openai import OpenAIProvider
from optaware.llm._protocol import Done
from optaware.records import ChatReply, Usage


def reply(n, text="text"):
    return ChatReply(
        key="k",
        request_id=text_sha256(str(n)),
        model="m",
        text=f"{text} {n}",
        usage=Usage(prompt_tokens=n, cost_usd=0.25),
    )


def test_what_is_put_is_got_back_without_the_callers_key(tmp_path):
    cache = ReplyCache(tmp_path / "new")
    assert cache.get(reply(1).request_id) is None
    cache.put(reply(1, 'äß "quoted"\n\u2028 line'))
    for reader in (cache, ReplyCache(tmp_path / "new")):
        assert reader.get(reply(1).request_id) == reply(1, 'äß "quoted"\n\u2028 line').model_copy(update={"key": ""})
        assert len(reader) == 1


def test_opening_an_absent_cache_writes_nothing(tmp_path):
    ReplyCache(tmp_path / "new").get(reply(1).request_id)
    assert not (tmp_path / "new").exists()


def test_the_first_reply_stays(tmp_path):
    cache = ReplyCache(tmp_path)
    cache.put(reply(1, "first"))
    cache.put(reply(1, "second"))
    assert ReplyCache(tmp_path).get(reply(1).request_id).text == "first 1"


@pytest.mark.parametrize("cut", [1, 2, 60, 200])
def test_a_torn_tail_costs_one_reply_and_no_more(tmp_path, cut):
    with ReplyCache(tmp_path) as cache:
        for n in range(5):
            cache.put(reply(n))
    path = tmp_path / "segment-0000.jsonl"
    path.write_bytes(path.read_bytes()[:-cut])
    with ReplyCache(tmp_path) as cache:
        assert [cache.get(reply(n).request_id) is not None for n in range(5)] == [True] * 4 + [False]
        cache.put(reply(4))
        cache.put(reply(5))
    with ReplyCache(tmp_path) as cache:
        assert all(cache.get(reply(n).request_id) == reply(n).model_copy(update={"key": ""}) for n in range(6))
    assert all(json.loads(line) for line in path.read_text().splitlines())


@pytest.mark.parametrize("damage", [b"#", b"\x00", b"\xff"])
def test_damaged_lines_are_misses_and_are_mended_by_the_next_put(tmp_path, damage):
    with ReplyCache(tmp_path) as cache:
        for n in range(5):
            cache.put(reply(n))
    path = tmp_path / "segment-0000.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[1] = lines[1][:90] + damage + lines[1][91:]
    lines[3] = damage * len(lines[3])
    path.write_bytes(b"\n".join(lines))
    with ReplyCache(tmp_path) as cache:
        assert [cache.get(reply(n).request_id) is not None for n in range(5)] == [True, False, True, False, True]
        cache.put(reply(1))
        cache.put(reply(3))
        assert cache.get(reply(1).request_id).text == "text 1"
    with ReplyCache(tmp_path) as cache:
        assert all(cache.get(reply(n).request_id) is not None for n in range(5))


def test_two_writers_use_two_segments_and_see_each_other(tmp_path):
    one, two = ReplyCache(tmp_path), ReplyCache(tmp_path)
    for n in range(0, 20, 2):
        one.put(reply(n))
        two.put(reply(n + 1))
    assert all(cache.get(reply(n).request_id) is not None for cache in (one, two) for n in range(20))
    assert len(list(tmp_path.glob("segment-*.jsonl"))) == 2
    one.close()
    two.close()
    with ReplyCache(tmp_path) as again:
        again.put(reply(99))
    assert len(list(tmp_path.glob("segment-*.jsonl"))) == 2


WRITER = """
import sys
from pathlib import Path
from optaware._io import text_sha256
from optaware.llm import ReplyCache
from optaware.records import ChatReply
cache = ReplyCache(Path(sys.argv[1]))
for n in range(int(sys.argv[2]), 10**9):
    cache.put(ChatReply(key="", request_id=text_sha256(str(n)), model="m", text="x" * 300))
    print(n, flush=True)
"""


def test_two_processes_killed_while_writing_lose_nothing_that_they_had_put(tmp_path):
    starts = (0, 10**6)
    running = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(start)], stdout=subprocess.PIPE)
        for start in starts
    ]
    last = []
    for process in running:
        with process:
            for _ in range(200):
                line = process.stdout.readline()
            process.kill()
            rest = process.stdout.read().split(b"\n")
            last.append(int(([line, *[item for item in rest[:-1] if item]])[-1]))
    cache = ReplyCache(tmp_path)
    for start, end in zip(starts, last, strict=True):
        assert end >= start + 199
        assert all(cache.get(text_sha256(str(n))) is not None for n in range(start, end + 1))


def test_a_hundred_thousand_replies_are_opened_by_reading_once(tmp_path):
    path = tmp_path / "segment-0000.jsonl"
    names = [text_sha256(str(n)) for n in range(100_000)]
    with path.open("w") as file:
        for name in names:
            record = {"key": "", "request_id": name, "model": "m", "text": "t" * 200}
            file.write(json.dumps({"id": name, "reply": record}) + "\n")
    cache = ReplyCache(tmp_path)
    assert len(cache) == 100_000
    assert cache.get(names[77_777]).request_id == names[77_777]


def test_a_line_longer_than_the_read_block_is_found(tmp_path):
    with ReplyCache(tmp_path) as cache:
        cache.put(reply(1))
        cache.put(reply(2, "x" * (5 << 20)))
        cache.put(reply(3))
    with ReplyCache(tmp_path) as cache:
        assert len(cache.get(reply(2).request_id).text) > 5 << 20
        assert cache.get(reply(3).request_id) is not None


def test_a_folder_that_cannot_be_written_is_a_storage_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError):
        ReplyCache(tmp_path / "file" / "cache").put(reply(1))


def test_threads_may_share_one_cache(tmp_path):
    cache = ReplyCache(tmp_path)
    threads = [threading.Thread(target=lambda k=k: [cache.put(reply(n)) for n in range(k, 200, 4)]) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(ReplyCache(tmp_path).get(reply(n).request_id) is not None for n in range(200)) == 200


RUN = """
import signal, sys
from pathlib import Path
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is born with SIGINT ignored
from optaware.llm import open_chat
from optaware.records import ChatMessage, ChatModelRef, ChatRequest
ref = ChatModelRef(provider="openai", model="m", base_url=sys.argv[1], api_key_env="TEST_CHAT_KEY", concurrency=4)
asks = (
    ChatRequest(key=f"k{i}", messages=(ChatMessage(role="user", content=f"question {i}"),), max_tokens=16)
    for i in range(100)
)
for reply in open_chat(ref, cache=Path(sys.argv[2])).complete(asks):
    print(reply.request_id, flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_run_pays_for_nothing_twice(how, loopback, ref, asks, tmp_path):
    def hold(number, _):
        return loopback.Fault(hang=True) if number > 40 else None

    with loopback.LoopbackServer(fault=hold) as server:
        command = [sys.executable, "-c", RUN, server.base_url, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            printed = [process.stdout.readline().decode().strip() for _ in range(40)]
            process.send_signal(how)
            _, said = process.communicate()
            assert process.returncode != 0
        if how is signal.SIGINT:
            assert b"KeyboardInterrupt" in said
            assert b"never awaited" not in said
            assert b"Task was destroyed" not in said
        server.fault = None
        server.release.set()
        replies = list(open_chat(ref(server.base_url), cache=tmp_path).complete(asks(100)))
        assert len(replies) == 100
        assert {reply.request_id for reply in replies if reply.cached} == set(printed)
        # Every answered one is asked exactly once. Those in flight at the kill, four at most, had no answer and are
        # asked again; the server may read them only after the kill.
        asked = Counter(server.contents())
        answered = {f"question {reply.key[1:]}" for reply in replies if reply.cached}
        assert len(asked) == 100
        assert {asked[question] for question in answered} == {1}
        assert sum(asked.values()) - 100 <= 4


def test_errors_are_not_kept(loopback, chat, asks, tmp_path):
    empty = loopback.Fault(message={"role": "assistant", "content": ""})
    with loopback.LoopbackServer(fault=lambda *_: empty) as server:
        assert all(r.error for r in chat(server.base_url, parts={"cache": ReplyCache(tmp_path)}).complete(asks(3)))
        server.fault = None
        assert all(r.text for r in chat(server.base_url, parts={"cache": ReplyCache(tmp_path)}).complete(asks(3)))


def test_a_session_gives_back_at_its_end_what_was_finished(server, ref, asks):
    session = OpenAIProvider(ref(server.base_url)).open()
    for request in asks(3):
        session.submit(request_id("m", request), request)
    while session._done.qsize() < 3:
        threading.Event().wait(0.005)
    assert {done.reply.text for done in session.close()} == {f"reply to: question {n}" for n in range(3)}
    assert not any(thread.name == "optaware-chat" for thread in threading.enumerate())


def test_closing_early_keeps_replies_that_were_finished_but_not_taken(asks, tmp_path):
    class Session:
        def __init__(self):
            self.asked = []

        def submit(self, name, request):
            self.asked.append(name)

        def wait(self, timeout_s=None):
            return self.done(self.asked.pop())

        def close(self):
            return [self.done(name) for name in self.asked]

        def done(self, name):
            return Done(name, ChatReply(key="", request_id=name, model="m", text="finished"))

    provider = SimpleNamespace(identity="m", window=6, concurrency=3, open=Session)
    model = Chat(provider, cache=ReplyCache(tmp_path))
    stream = model.complete(asks(100))
    next(stream)
    stream.close()
    assert len(ReplyCache(tmp_path)) == 6
    assert model.totals.calls == 6
    assert model.totals.replies == 1


def test_the_key_is_in_no_record_log_error_or_file(loopback, ref, chat, asks, tmp_path, caplog):
    key = os.environ["TEST_CHAT_KEY"]
    caplog.set_level(logging.DEBUG)

    def leaky(number, body):
        text = json.dumps({"error": {"message": f"Incorrect API key provided: {key} (Bearer {key})", "code": key}})
        by_text = {
            "question 0": loopback.Fault(body=f"key was {key}".encode()),
            "question 1": loopback.Fault(status=500, body=text.encode()),
            "question 2": loopback.Fault(message={"role": "assistant", "content": f"you are {key}"}),
            "question 3": loopback.Fault(message={"role": "assistant", "content": None, "refusal": f"not for {key}"}),
            "question 4": loopback.Fault(body=text.encode()),
            "stop": loopback.Fault(status=401, body=text.encode()),
        }
        return by_text.get(body["messages"][-1]["content"])

    with loopback.LoopbackServer(fault=leaky) as server, ReplyCache(tmp_path / "cache") as cache:
        model = chat(server.base_url, parts={"cache": cache}, max_retries=1)
        replies = list(model.complete(asks(8)))
        with pytest.raises(EndpointError) as caught:
            list(model.complete(asks(["stop"])))
        assert any(request["headers"]["authorization"] == f"Bearer {key}" for request in server.requests)
    assert len(replies) == 8
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    shown = [
        *[reply.model_dump_json() for reply in replies],
        "".join(traceback.format_exception(caught.value)),
        repr(caught.value),
        repr(vars(model)),
        repr(vars(model._provider)),
        model.identity,
        caplog.text,
        files.decode(),
        ref(server.base_url).model_dump_json(),
    ]
    assert not [text for text in shown if key in text]
    assert "[redacted]" in files.decode()
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
    assert caplog.text
