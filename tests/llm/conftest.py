from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from optaware.llm._chat import Chat
from optaware.llm._openai import OpenAIProvider
from optaware.llm._retry import RetryPolicy
from optaware.records import ChatMessage, ChatModelRef, ChatRequest

KEY = "canary-7f3a9c51e2"


def _load_loopback() -> ModuleType:
    if "loopback" not in sys.modules:
        spec = importlib.util.spec_from_file_location("loopback", Path(__file__).parents[1] / "loopback.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["loopback"] = module
        spec.loader.exec_module(module)
    return sys.modules["loopback"]


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module tests/loopback.py, with the key canary in the environment."""
    monkeypatch.setenv("TEST_CHAT_KEY", KEY)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    return _load_loopback()


@pytest.fixture
def server(loopback: ModuleType) -> Iterator[Any]:
    with loopback.LoopbackServer() as running:
        yield running


class Waits:
    """Stands in for sleeping: notes how long each wait would have been."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
def ref() -> Callable[..., ChatModelRef]:
    def make(base_url: str, **changes: Any) -> ChatModelRef:
        fields = {"provider": "openai", "model": "m", "base_url": base_url, "api_key_env": "TEST_CHAT_KEY", **changes}
        return ChatModelRef(**fields)

    return make


@pytest.fixture
def chat(ref: Callable[..., ChatModelRef], waits: Waits) -> Callable[..., Chat]:
    """A chat model at `base_url` that does not really sleep between attempts."""

    def make(
        base_url: str, policy: dict[str, Any] | None = None, parts: dict[str, Any] | None = None, **changes: Any
    ) -> Chat:
        made = ref(base_url, **changes)
        how = RetryPolicy(**{"max_retries": made.max_retries, "give_up_after": 1000, **(policy or {})})
        return Chat(OpenAIProvider(made, policy=how, sleep=waits), **(parts or {}))

    return make


@pytest.fixture
def asks() -> Callable[..., list[ChatRequest]]:
    """`asks(3)` are three requests with different texts; `asks(["a", "a"])` have the texts given."""

    def make(texts: int | list[str], prefix: str = "question") -> list[ChatRequest]:
        given = [f"{prefix} {i}" for i in range(texts)] if isinstance(texts, int) else texts
        return [
            ChatRequest(key=f"k{i}", messages=(ChatMessage(role="user", content=text),), max_tokens=16)
            for i, text in enumerate(given)
        ]

    return make
