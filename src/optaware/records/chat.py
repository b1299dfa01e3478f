"""Requests to and replies from chat models."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from optaware._io import hide_secrets
from optaware.records._base import Record

__all__ = ["ChatMessage", "ChatModelRef", "ChatReply", "ChatRequest", "Usage"]


class ChatModelRef(Record):
    """Which chat model answers, and how it is reached.

    `openai`: any OpenAI-compatible endpoint (`base_url`; the key is read from the environment variable `api_key_env`
    and never stored). `local`: a Hugging Face model by hub name, path or asset name. `scripted`: replies from a JSONL
    file.
    """

    provider: Literal["openai", "local", "scripted"] = "local"
    model: str
    base_url: str | None = None
    api_key_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "OPENAI_API_KEY"
    temperature: float = 0.0
    max_tokens: int = 160
    seed: int = 0
    concurrency: int = 8
    """Requests in flight at once (endpoint), or rows in a batch (local, where it is at least 64)."""
    timeout_s: float = 120.0
    max_retries: int = 6
    usd_per_million_prompt_tokens: float | None = None
    usd_per_million_completion_tokens: float | None = None
    budget_usd: float | None = None
    budget_tokens: int | None = None

    @field_validator("base_url")
    @classmethod
    def _no_secret_in_the_address(cls, url: str | None) -> str | None:
        """References are written to disk and shown in reports, so an address with a key in it is refused."""
        if url is not None and hide_secrets(url) != url:
            raise ValueError(
                "it holds a user name, password or key, and addresses are stored; set OPENAI_BASE_URL, which is not, "
                "or give the key in the variable that api_key_env names"
            )
        return url


class ChatMessage(Record):
    """One turn."""

    role: Literal["system", "user", "assistant"]
    content: str


class ChatRequest(Record):
    """One question to a chat model. Two requests with the same content (key aside) share one cached reply."""

    key: str
    """The caller's name for the request, echoed in the reply; not part of its identity."""
    messages: tuple[ChatMessage, ...]
    max_tokens: int
    temperature: float = 0.0
    seed: int = 0
    stop: tuple[str, ...] = ()


class Usage(Record):
    """Tokens and money of one call."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost_usd: float | None = None


class ChatReply(Record):
    """The answer to one request: text, or an error in words. Exactly one of `text` and `error` is set."""

    key: str
    request_id: str
    model: str
    text: str | None = None
    error: str | None = None
    error_code: str | None = None
    finish_reason: str | None = None
    usage: Usage = Usage()
    attempts: int = 1
    latency_s: float = 0.0
    cached: bool = False
    payer: str = ""
    """Of a cached reply: for whose work it was asked for, where the asker has given itself a name."""
