"""What every provider must do, and what `Chat` does around all of them."""

from __future__ import annotations

import itertools
import subprocess
import sys

import pytest

from optaware._io import write_jsonl
from optaware.errors import BudgetExhausted, InputError
from optaware.llm import ChatModel, ReplyCache, open_chat, request_id, scripted_chat
from optaware.llm._usage import Budget, add_usage, price
from optaware.records import ChatMessage, ChatModelRef, ChatReply, ChatRequest, Usage, parse_record


@pytest.fixture
def open_any(request, tmp_path, loopback):
    """Opens a chat model of the provider named by the parameter; `opened.sent()` counts what it was really asked."""
    kind = request.param
    if kind == "openai":
        with loopback.LoopbackServer() as server:

            def make(**parts):
                ref = ChatModelRef(
                    provider="openai", model="m", base_url=server.base_url, api_key_env="TEST_CHAT_KEY", **parts
                )
                return open_chat(ref, cache=tmp_path / "cache")

            make.sent = lambda: server.count
            yield make
        return
    if kind == "scripted file":
        write_jsonl(tmp_path / "script.jsonl", [{"contains": "question", "text": "an answer"}])

        def make(**parts):
            ref = ChatModelRef(provider="scripted", model=str(tmp_path / "script.jsonl"), **parts)
            make.opened.append(open_chat(ref, cache=tmp_path / "cache"))
            return make.opened[-1]

        make.opened = []
        make.sent = lambda: sum(model.totals.calls for model in make.opened)
        yield make
        return
    if kind == "local":
        torch_models = pytest.importorskip("optaware.models")
        folder = torch_models.tiny_model(tmp_path / "tiny")

        def make(**parts):
            make.opened.append(
                open_chat(ChatModelRef(provider="local", model=str(folder), **parts), cache=tmp_path / "cache")
            )
            return make.opened[-1]

        make.opened = []
        make.sent = lambda: sum(model.totals.calls for model in make.opened)
        yield make
        return
    sent = []

    def answer(request):
        sent.append(request)
        return "an answer"

    def make(**parts):
        return scripted_chat(answer, cache=tmp_path / "cache", **parts)

    make.sent = lambda: len(sent)
    yield make


every_provider = pytest.mark.parametrize(
    "open_any", ["openai", "scripted file", "scripted function", "local"], indirect=True
)


@every_provider
def test_one_reply_per_request_with_its_key_and_id(open_any, asks):
    model = open_any()
    assert isinstance(model, ChatModel)
    requests = asks(20)
    replies = {reply.key: reply for reply in model.complete(requests)}
    assert len(replies) == 20
    for request in requests:
        reply = replies[request.key]
        assert reply.request_id == request_id(model.identity, request)
        assert (reply.text is None) != (reply.error is None)
        assert not reply.cached


@every_provider
def test_a_second_run_is_answered_by_the_cache(open_any, asks):
    first = {reply.key: reply for reply in open_any().complete(asks(12))}
    sent = open_any.sent()
    again = open_any()
    second = {reply.key: reply for reply in again.complete(asks(12))}
    texts = {key for key, reply in first.items() if reply.text is not None}
    assert texts
    assert open_any.sent() - sent == 12 - len(texts)
    for key in texts:
        assert second[key] == first[key].model_copy(update={"cached": True})
    assert again.totals.cached == len(texts)


@every_provider
def test_identical_requests_are_sent_once(open_any, asks):
    replies = list(open_any().complete(asks(["question x"] * 30 + ["question y"] * 30)))
    assert sorted(reply.key for reply in replies) == sorted(f"k{i}" for i in range(60))
    if all(reply.error is None for reply in replies):
        assert open_any.sent() == 2
        assert sum(not reply.cached for reply in replies) == 2


@every_provider
def test_no_requests_no_replies(open_any):
    assert list(open_any().complete([])) == []
    assert open_any.sent() == 0


@every_provider
def test_stopping_early_keeps_what_is_finished(open_any, asks, tmp_path):
    taken = itertools.islice(open_any(concurrency=4).complete(asks(50)), 5)
    kept = [reply for reply in taken if reply.text is not None]
    cache = ReplyCache(tmp_path / "cache")
    assert all(cache.get(reply.request_id) is not None for reply in kept)


@every_provider
def test_a_fault_in_the_callers_rows_comes_through(open_any, asks):
    def rows():
        yield from asks(3)
        raise ZeroDivisionError("the caller's own")

    with pytest.raises(ZeroDivisionError):
        list(open_any().complete(rows()))


def test_requests_are_read_a_bounded_number_ahead(server, chat, asks):
    taken = []

    def rows():
        for request in asks(200):
            taken.append(request)
            yield request

    ahead = []
    for given, _ in enumerate(chat(server.base_url, concurrency=4).complete(rows()), start=1):
        ahead.append(len(taken) - given)
    assert max(ahead) <= 8
    assert len(taken) == 200
    assert server.peak_in_flight <= 4


def test_duplicates_do_not_pile_up_behind_one_slow_request(loopback, chat, asks):
    taken = []

    def rows():
        for request in asks(["same"] * 1000):
            taken.append(request)
            if len(taken) == 33:
                raise AssertionError("read too far ahead")
            yield request

    with loopback.LoopbackServer(fault=lambda *_: loopback.Fault(hang=True)) as server:
        model = chat(server.base_url, concurrency=4, timeout_s=0.2, max_retries=0)
        first = next(iter(model.complete(rows())))
        assert first.error_code == "timeout"
        assert len(taken) == 32


def test_sixty_four_in_flight_by_counts(loopback, chat, asks):
    reached = []

    def all_together(number, _):
        # Nobody is answered before 64 requests are there: the run can only end if they really go out together.
        reached.append(number)
        if len(reached) == 64:
            server.release.set()
        return loopback.Fault(hang=True)

    with loopback.LoopbackServer(fault=all_together) as server:
        replies = list(chat(server.base_url, concurrency=64).complete(asks(256)))
        assert len(replies) == len({reply.key for reply in replies}) == 256
        assert server.peak_in_flight == 64
        assert server.connections <= 64


def test_one_model_may_feed_another(server, chat, asks):
    rewriter = scripted_chat(lambda request: request.messages[-1].content.upper())

    def second():
        for reply in rewriter.complete(asks(40)):
            yield ChatRequest(key=reply.key, messages=(ChatMessage(role="user", content=reply.text),), max_tokens=4)

    replies = {reply.key: reply.text for reply in chat(server.base_url).complete(second())}
    assert replies == {f"k{i}": f"reply to: QUESTION {i}" for i in range(40)}


def test_the_request_id_is_of_the_content_alone():
    base = {"key": "a", "messages": (ChatMessage(role="user", content="x"),), "max_tokens": 5}
    name = request_id("m", ChatRequest(**base))
    assert name == request_id("m", ChatRequest(**{**base, "key": "b"}))
    changed = [
        {"messages": (ChatMessage(role="system", content="x"),)},
        {"messages": (ChatMessage(role="user", content="y"),)},
        {"max_tokens": 6},
        {"temperature": 0.5},
        {"seed": 1},
        {"stop": ("\n",)},
    ]
    names = {request_id("m", ChatRequest(**{**base, **change})) for change in changed}
    assert len(names | {name, request_id("n", ChatRequest(**base))}) == len(changed) + 2


def test_identity_holds_no_user_info_and_tells_endpoints_apart(ref, monkeypatch):
    from optaware.llm._openai import OpenAIProvider

    monkeypatch.setenv("OPENAI_BASE_URL", "http://user:secret@host:8000/v1/?token=secret#x")
    one = OpenAIProvider(ref("")).identity
    assert one == OpenAIProvider(ref("http://host:8000/v1")).identity
    assert one != OpenAIProvider(ref("http://host:8001/v1")).identity
    assert "secret" not in one


@pytest.mark.parametrize(
    "change",
    [
        {"base_url": "https://user:hunter2secret@host/v1"},
        {"base_url": "https://host/v1?api-key=hunter2secret"},
        {"api_key_env": "sk-hunter2secret"},
    ],
)
def test_a_secret_in_the_wrong_field_is_refused_and_not_repeated(change):
    with pytest.raises(InputError, match=next(iter(change))) as caught:
        parse_record(ChatModelRef, {"model": "m", "provider": "openai", **change}, "study.yaml")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host/v1", "http://", "http://host:port/v1"])
def test_an_address_that_is_none_is_refused_before_anything_is_sent(url, ref):
    with pytest.raises(InputError, match="base-url"):
        open_chat(ref(url), cache=None)


def test_openai_itself_needs_a_key(monkeypatch, asks):
    from optaware.errors import EndpointError

    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    model = open_chat(ChatModelRef(provider="openai", model="m", api_key_env="NO_SUCH_KEY"), cache=None)
    with pytest.raises(EndpointError, match="NO_SUCH_KEY is not set"):
        list(model.complete(asks(1)))


def test_a_server_of_ones_own_needs_no_key(server, chat, asks):
    assert next(chat(server.base_url, api_key_env="NO_SUCH_KEY").complete(asks(1))).text


def test_settings_travel_to_the_endpoint(server, chat):
    turns = (ChatMessage(role="system", content="s"), ChatMessage(role="user", content="u"))
    request = ChatRequest(key="k", messages=turns, max_tokens=7, temperature=0.25, seed=3, stop=("\n",))
    list(chat(server.base_url).complete([request]))
    assert server.requests[0]["path"] == "/v1/chat/completions"
    assert server.requests[0]["body"] == {
        "model": "m",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"}],
        "max_tokens": 7,
        "temperature": 0.25,
        "seed": 3,
        "stop": ["\n"],
    }


def test_prices_and_sums():
    ref = ChatModelRef(model="m", usd_per_million_prompt_tokens=2.0, usd_per_million_completion_tokens=8.0)
    assert price(ref, 1_000, 500).cost_usd == pytest.approx(0.006)
    assert price(ChatModelRef(model="m", usd_per_million_prompt_tokens=2.0), 1, 1).cost_usd is None
    known, unknown, nothing = Usage(prompt_tokens=1, cost_usd=0.5), Usage(prompt_tokens=2), Usage()
    assert add_usage(known, nothing).cost_usd == 0.5
    assert add_usage(known, unknown).cost_usd is None
    assert add_usage(known, known) == Usage(prompt_tokens=2, cost_usd=1.0)


def test_usage_counts_every_paid_attempt_and_reaches_the_callback(loopback, ref, chat, asks):
    seen = []
    empty = loopback.Fault(message={"role": "assistant", "content": ""})
    prices = {"usd_per_million_prompt_tokens": 1.0, "usd_per_million_completion_tokens": 2.0}
    with loopback.LoopbackServer(fault=lambda n, _: empty if n == 1 else None) as server:
        model = chat(server.base_url, parts={"on_usage": seen.append}, **prices)
        replies = list(model.complete(asks(3)))
    assert sum(reply.usage.prompt_tokens for reply in replies) == 40
    assert model.totals.cost_usd == pytest.approx(4 * (10 * 1 + 5 * 2) / 1e6)
    assert [totals.replies for totals in seen] == [1, 2, 3]
    assert (model.totals.calls, model.totals.retries, model.totals.unpriced_calls) == (3, 1, 0)
    assert model.totals.wall_s > 0


@pytest.mark.parametrize("limit", [{"budget_tokens": 100}, {"budget_usd": 0.0001}])
def test_a_budget_stops_new_requests_keeps_the_finished_and_resumes(limit, server, ref, asks, tmp_path):
    prices = {"usd_per_million_prompt_tokens": 5.0, "usd_per_million_completion_tokens": 10.0}
    # 15 tokens or $0.0001 / 100 * 1.0 a call
    prices = {name: value / 15 for name, value in prices.items()}
    got = []
    with pytest.raises(BudgetExhausted, match="budget-exhausted") as caught:
        got.extend(
            open_chat(ref(server.base_url, concurrency=4, **prices, **limit), cache=tmp_path).complete(asks(100))
        )
    paid = len(got)
    assert server.answered == server.count == paid
    assert caught.value.exit_code == 3
    if "budget_tokens" in limit:
        assert paid == 7  # the seventh call is the one that reaches 100 tokens
    assert paid < 40
    rest = list(open_chat(ref(server.base_url, concurrency=4), cache=tmp_path).complete(asks(100)))
    assert len(rest) == 100
    assert server.count == 100
    assert sum(reply.cached for reply in rest) == paid


def test_a_budget_lets_cached_rows_through_and_is_no_error_when_it_just_suffices(server, ref, asks, tmp_path):
    list(open_chat(ref(server.base_url), cache=tmp_path).complete(asks(10)))
    tight = open_chat(ref(server.base_url, budget_tokens=1), cache=tmp_path)
    assert len(list(tight.complete(asks(10)))) == 10
    enough = open_chat(ref(server.base_url, budget_tokens=1, concurrency=1), cache=tmp_path)
    assert len(list(enough.complete(asks(11)))) == 11


def test_a_budget_counts_where_the_endpoint_does_not(loopback, ref, asks):
    with loopback.LoopbackServer(fault=lambda *_: loopback.Fault(usage=None)) as server:
        with pytest.raises(BudgetExhausted):
            list(open_chat(ref(server.base_url, budget_tokens=60, concurrency=1), cache=None).complete(asks(100)))
        assert 5 < server.count < 20


def test_a_budget_in_dollars_needs_prices(ref):
    with pytest.raises(InputError, match="budget-without-price"):
        open_chat(ref("http://localhost:1/v1", budget_usd=1.0), cache=None)


def test_requests_in_flight_are_reckoned_with():
    budget = Budget(tokens=100)
    assert budget.admits(1000)
    budget.charge(Usage(prompt_tokens=20))
    assert budget.admits(3)
    assert not budget.admits(4)
    budget.charge(Usage(prompt_tokens=80))
    assert budget.spent


def test_a_script_says_what_it_lacks_and_what_is_wrong_with_it(tmp_path, asks):
    path = tmp_path / "script.jsonl"
    write_jsonl(path, [{"text": "a", "error": "b"}, {"contains": "x"}, {"text": "fine", "colour": 1}])
    with pytest.raises(InputError) as caught:
        open_chat(ChatModelRef(provider="scripted", model=str(path)), cache=None)
    assert len(caught.value.problems) == 3
    write_jsonl(path, [{"key": "k0", "text": "by key"}, {"contains": "question 1", "error": "no", "error_code": "x"}])
    model = open_chat(ChatModelRef(provider="scripted", model=str(path)), cache=None)
    replies = {reply.key: reply for reply in model.complete(asks(3))}
    assert replies["k0"].text == "by key"
    assert (replies["k1"].error, replies["k1"].error_code) == ("no", "x")
    assert replies["k2"].error_code == "no-scripted-reply"


def test_a_changed_script_is_another_model(tmp_path):
    path, names = tmp_path / "script.jsonl", set()
    for text in ("a", "b"):
        write_jsonl(path, [{"text": text}])
        names.add(open_chat(ChatModelRef(provider="scripted", model=str(path)), cache=None).identity)
    assert len(names) == 2


def test_replies_of_a_script_may_be_whole_records(asks):
    model = scripted_chat(lambda r: ChatReply(key="other", request_id="", model="m", error="no", error_code="refusal"))
    reply = next(model.complete(asks(1)))
    assert (reply.key, reply.error_code) == ("k0", "refusal")
    assert reply.request_id == request_id(model.identity, asks(1)[0])


def test_importing_and_a_cached_run_load_neither_torch_nor_openai(server, ref, asks, tmp_path):
    list(open_chat(ref(server.base_url), cache=tmp_path).complete(asks(3)))
    code = f"""
import sys
from pathlib import Path
from optaware.llm import open_chat
from optaware.records import ChatMessage, ChatModelRef, ChatRequest
ref = ChatModelRef(provider="openai", model="m", base_url={server.base_url!r}, api_key_env="NO_SUCH_KEY")
turns = [ChatMessage(role="user", content=f"question {{i}}") for i in range(3)]
asks = [ChatRequest(key=turn.content, messages=(turn,), max_tokens=16) for turn in turns]
assert all(reply.cached for reply in open_chat(ref, cache=Path({str(tmp_path)!r})).complete(asks))
heavy = {{"torch", "transformers", "openai", "scipy", "matplotlib", "jinja2"}} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", code], check=True)
