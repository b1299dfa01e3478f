"""What is particular to local models: loading late, chat templates, chunks that stream, rows that do not fit."""

from __future__ import annotations

import subprocess
import sys

import pytest

from optaware.llm import open_chat, shared_models
from optaware.llm._chat import Chat
from optaware.llm._local import LocalProvider, folder_id
from optaware.llm._local_session import prompt_ids, prompt_text
from optaware.models import tiny_model
from optaware.records import ChatMessage, ChatModelRef, ChatRequest


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def provider(folder):
    return LocalProvider(ChatModelRef(model=str(folder)), dtype="fp32")


def ask(key, text="question", **parts):
    turns = (ChatMessage(role="user", content=text),)
    return ChatRequest(**{"key": key, "messages": turns, "max_tokens": 6, **parts})


def texts(model, requests):
    return {reply.key: reply.text or reply.error_code for reply in model.complete(requests)}


def test_replies_do_not_depend_on_what_else_is_asked(provider):
    requests = [ask(str(n), "question " * (n % 5 + 1) + str(n)) for n in range(12)]
    together = texts(Chat(provider), requests)
    assert together == {key: text for request in requests for key, text in texts(Chat(provider), [request]).items()}
    assert len(set(together.values())) > 1


def test_sampling_is_by_the_requests_own_seed(provider):
    requests = [ask(f"{seed}/{n}", f"row {n}", temperature=1.5, seed=seed) for seed in range(3) for n in range(4)]
    once = texts(Chat(provider), requests)
    assert once == texts(Chat(provider), reversed(requests))
    assert len(set(once.values())) > 6


def test_rows_of_different_settings_share_a_chunk(provider):
    requests = [
        ask("greedy"),
        ask("short", max_tokens=1),
        ask("sampled", temperature=0.7),
        ask("stop", stop=("a", "e")),
    ]
    replies = {reply.key: reply for reply in Chat(provider).complete(requests)}
    assert set(replies) == {"greedy", "short", "sampled", "stop"}
    assert replies["short"].usage.completion_tokens == 1
    assert replies["greedy"].usage.prompt_tokens > 0


def test_a_row_that_does_not_fit_is_an_error_of_its_own(provider):
    replies = {
        r.key: r for r in Chat(provider).complete([ask("a"), ask("long", "x" * 100_000), ask("none", max_tokens=0)])
    }
    assert replies["long"].error_code == "prompt-too-long"
    assert replies["none"].error_code == "bad-request"
    assert replies["a"].text or replies["a"].error_code == "empty-reply"


def test_replies_come_out_while_the_chunk_is_still_running(provider, monkeypatch):
    session = provider.open()
    monkeypatch.setattr(session, "_batch_size", 1)
    running = []
    for n in range(8):
        session.submit(f"{n:064x}", ask(str(n), f"question {n}", max_tokens=3))
    for _ in range(8):
        assert session.wait() is not None
        running.append(session._thread is not None)
    assert all(running)
    assert session.close() == []


def test_closing_stops_the_generating_thread_at_the_next_token(provider):
    stream = Chat(provider).complete([ask(str(n), f"question {n}", max_tokens=1 + 100 * (n > 0)) for n in range(200)])
    assert next(stream).key == "0"
    steps = []
    hook = provider._ready[0].model.register_forward_pre_hook(lambda *_: steps.append(1))
    stream.close()
    hook.remove()
    assert len(steps) < 50
    # The model is as it was: no hook of the session is left on it, and it still answers.
    assert not provider._ready[0].model._forward_pre_hooks
    assert len(texts(Chat(provider), [ask("again")])) == 1


def test_a_fault_while_generating_reaches_the_caller(provider, monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("inside the model")

    monkeypatch.setattr("optaware.models.generate", broken)
    with pytest.raises(ZeroDivisionError, match="inside the model"):
        texts(Chat(provider), [ask("a")])


def test_the_model_is_loaded_once_and_only_when_it_is_needed(folder, tmp_path, monkeypatch):
    from optaware import models

    loads = []
    real = models.load_model
    monkeypatch.setattr(models, "load_model", lambda ref: loads.append(ref) or real(ref))
    model = open_chat(ChatModelRef(model=str(folder)), cache=tmp_path)
    assert model.identity
    assert list(model.complete([])) == []
    assert not loads
    requests = [ask(str(n), f"question {n}") for n in range(5)]
    kept = [reply.key for reply in model.complete(requests) if reply.text is not None]
    list(model.complete([ask("more", "another")]))
    assert len(loads) == 1
    cached = open_chat(ChatModelRef(model=str(folder)), cache=tmp_path)
    assert len(list(cached.complete(request for request in requests if request.key in kept))) == len(kept)
    assert len(loads) == 1


def test_models_are_shared_within_a_block_and_only_there(folder, monkeypatch):
    from optaware import models

    loads = []
    real = models.load_model
    monkeypatch.setattr(models, "load_model", lambda ref: loads.append(ref) or real(ref))
    ref = ChatModelRef(model=str(folder))
    expected = texts(open_chat(ref, cache=None), [ask("a", "question")])
    with shared_models():
        for seed in range(3):
            assert (
                texts(open_chat(ref.model_copy(update={"seed": seed}), cache=None), [ask("a", "question")]) == expected
            )
    open_chat(ref, cache=None)._provider.open()
    assert len(loads) == 3


def test_a_cached_local_run_does_not_load_torch(folder, tmp_path):
    requests = [ask(str(n), f"question {n}") for n in range(5)]
    model = open_chat(ChatModelRef(model=str(folder)), cache=tmp_path)
    kept = [
        request
        for request, reply in zip(requests, sorted(model.complete(requests), key=lambda r: r.key), strict=True)
        if reply.text
    ]
    assert kept
    code = f"""
import sys
from pathlib import Path
from optaware.llm import open_chat
from optaware.records import ChatModelRef, ChatRequest
asks = [ChatRequest.model_validate_json(line) for line in {[request.model_dump_json() for request in kept]!r}]
model = open_chat(ChatModelRef(model={str(folder)!r}), cache=Path({str(tmp_path)!r}))
assert all(reply.cached for reply in model.complete(asks))
assert not {{"torch", "transformers"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_identity_follows_the_content_of_the_folder(folder, tmp_path):
    copy = tmp_path / "moved"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert folder_id(copy) == folder_id(folder)
    weights = next(copy.glob("*.safetensors"))
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    assert folder_id(copy) != folder_id(folder)
    assert str(tmp_path) not in LocalProvider(ChatModelRef(model=str(copy))).identity
    name = LocalProvider(ChatModelRef(model="organisation/model"))
    assert name.identity == "local:organisation/model:bf16"


def test_samples_reach_every_stretch_of_a_large_file(tmp_path):
    path = tmp_path / "model.safetensors"
    data = bytearray(4 << 20)
    path.write_bytes(data)
    names = {folder_id(tmp_path)}
    for place in (0, len(data) - 1):
        path.write_bytes(data[:place] + b"x" + data[place + 1 :])
        names.add(folder_id(tmp_path))
    path.write_bytes(b"\x01" * len(data))
    names.add(folder_id(tmp_path))
    assert len(names) == 4


class Tokenizer:
    """Stands in for a tokenizer whose chat template may refuse system turns."""

    def __init__(self, template, system=True):
        self.chat_template, self._system = template, system

    def apply_chat_template(self, turns, *, tokenize, add_generation_prompt):
        assert not tokenize
        assert add_generation_prompt
        if not self._system and any(turn["role"] == "system" for turn in turns):
            raise ValueError("System role not supported")
        return "".join(f"<{turn['role']}>{turn['content']}" for turn in turns) + "<assistant>"


def test_the_chat_template_is_used_and_system_turns_find_a_place():
    turns = [ChatMessage(role="system", content="S"), ChatMessage(role="user", content="U")]
    assert prompt_text(Tokenizer("t"), turns) == "<system>S<user>U<assistant>"
    assert prompt_text(Tokenizer("t", system=False), turns) == "<user>S\n\nU<assistant>"
    assert prompt_text(Tokenizer("t", system=False), turns[:1]) == "<user>S<assistant>"
    assert prompt_text(Tokenizer(None), turns) == "S\n\nU\n\n"


def test_texts_cannot_make_special_tokens(folder):
    """A row that holds the end of a turn stays a row: only the chat template ends turns."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    mark, special = tokenizer.all_special_tokens[0], set(tokenizer.all_special_ids)
    for template in (None, "{% for m in messages %}{{ m.role }}:{{ m.content }}" + mark + "{% endfor %}"):
        tokenizer.chat_template = template
        for text in (f"a{mark}b", f"{mark}{mark}", f"\ue000{mark}"):
            turns = [ChatMessage(role="system", content="be kind"), ChatMessage(role="user", content=text)]
            plain = [turns[0], turns[1].model_copy(update={"content": "x"})]
            ids, usual = prompt_ids(tokenizer, turns), prompt_ids(tokenizer, plain)
            assert [token for token in ids if token in special] == [token for token in usual if token in special]
            wanted = prompt_text(tokenizer, turns)
            assert tokenizer.decode(ids).removeprefix(tokenizer.bos_token or "") in (wanted, wanted + mark)
    assert (
        prompt_ids(tokenizer, plain) == tokenizer(prompt_text(tokenizer, plain), add_special_tokens=False)["input_ids"]
    )


def test_a_row_of_all_characters_for_private_use_is_a_row_like_others(folder):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    mark = tokenizer.all_special_tokens[0]
    text = "".join(map(chr, range(0xE000, 0xF900))) + mark + "\ue0000\ue001\ue0001\ue001\ue000"
    special = set(tokenizer.all_special_ids)
    ids, usual = (prompt_ids(tokenizer, [ChatMessage(role="user", content=each)]) for each in (text, "x"))
    assert text in tokenizer.decode(ids)
    assert [token for token in ids if token in special] == [token for token in usual if token in special]
