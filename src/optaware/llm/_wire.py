"""OpenAI-compatible chat completions on the wire: parameters, answers, faults, and keeping the key out of text."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from optaware._io import hide_secrets
from optaware.llm._inert import inert
from optaware.records import ChatRequest

__all__ = ["Completion", "Dialect", "Fault", "Secret", "completion_from", "server_message"]

_ROW_FAULTS = (
    "context_length_exceeded",
    "exceed_context_size",
    "maximum context length",
    "string_above_max_length",
    "content_filter",
    "content_policy",
    "content management policy",
    "invalid_prompt",
)
"""What a 4xx answer says when one prompt is at fault, not the set-up."""


class Secret:
    """An API key that does not show itself; `hide` takes it out of text that came from outside."""

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The key, for the request header."""
        return self._value

    def hide(self, text: str) -> str:
        """`text` without the key and without what looks like one."""
        return hide_secrets(self.strip(text))

    def strip(self, text: str) -> str:
        """`text` without this very key; for model output, where things that only look like keys must stay."""
        return text.replace(self._value, "[redacted]") if self._value else text

    def __repr__(self) -> str:
        return "Secret(...)"


@dataclass(frozen=True)
class Completion:
    """A usable answer; `id` is the endpoint's name for it, if it gives any."""

    text: str | None
    refusal: str | None
    finish_reason: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    id: str = ""


@dataclass(frozen=True)
class Fault:
    """An attempt that gave no usable answer.

    Attributes:
        code: `http-<status>`, `timeout`, `connection`, `bad-body`, `empty-reply`, `repeated-answer` or
            `bad-request`.
        detail: In words, without secrets.
        status: HTTP status; None when there was no HTTP answer.
        wait_s: How long the endpoint asks to wait.
        prompt_tokens: Tokens that the endpoint billed all the same.
        completion_tokens: Likewise.
        digest: Of a repeated answer.
    """

    code: str
    detail: str
    status: int | None = None
    wait_s: float | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    digest: bytes | None = None

    @property
    def quota_spent(self) -> bool:
        """A 429 that no waiting mends."""
        return self.status == 429 and "insufficient_quota" in self.detail

    @property
    def of_this_row(self) -> bool:
        """Whether the endpoint objects to this prompt rather than to the set-up."""
        return self.code == "bad-request" or (
            self.status in (400, 413, 422) and any(mark in self.detail.lower() for mark in _ROW_FAULTS)
        )


@dataclass
class Dialect:
    """What an endpoint understands of the optional parameters, learnt from its refusals."""

    token_field: str = "max_tokens"  # noqa: S105 - not a password
    seed: bool = True

    def parameters(self, model: str, request: ChatRequest) -> dict[str, Any]:
        """Keyword arguments of `chat.completions.create`; no message can hold a control token of the model's."""
        parameters: dict[str, Any] = {
            "model": model,
            "messages": [{"role": turn.role, "content": inert(turn.content)} for turn in request.messages],
            "temperature": request.temperature,
            self.token_field: request.max_tokens,
        }
        if self.seed:
            parameters["seed"] = request.seed
        if request.stop:
            parameters["stop"] = list(request.stop)
        return parameters

    def learn(self, fault: Fault, sent: dict[str, Any]) -> bool:
        """Adapt to a refused optional parameter; True when the same request is worth sending again at once."""
        if fault.status not in (400, 422):
            return False
        if "max_tokens" in sent and "max_completion_tokens" in fault.detail:
            self.token_field = "max_completion_tokens"  # noqa: S105
            return True
        if "seed" in sent and re.search(r"\bseed\b", fault.detail):
            self.seed = False
            return True
        return False


def server_message(body: Any, secret: Secret) -> str:
    """What an error body says, in one line of at most 300 characters, without secrets."""
    error = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(error, dict):
        parts = [str(error[name]) for name in ("message", "detail", "code", "type", "param") if error.get(name)]
        text = " | ".join(parts) or json.dumps(error, default=str)
    else:
        text = str(error or "")
    text = " ".join(secret.hide(text).split())
    return text if len(text) <= 300 else text[:297] + "..."


def _tokens(usage: Any, name: str) -> int | None:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _well_formed(text: str) -> str:
    """JSON may smuggle in lone surrogates, which cannot be written as UTF-8."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _content_text(content: Any) -> str | None:
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
        return "".join(part for part in parts if isinstance(part, str))
    return None


def completion_from(body: bytes, secret: Secret) -> Completion | Fault:
    """Read the body of a 200 answer; anything that is not a chat completion with a choice is a `Fault`."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        start = " ".join(secret.hide(body[:80].decode("utf-8", "replace")).split())
        return Fault("bad-body", f"the answer is not JSON; it starts with {start!r}")
    if not isinstance(data, dict):
        return Fault("bad-body", f"the answer is a JSON {type(data).__name__}, not an object")
    name = data["id"] if isinstance(data.get("id"), str) else ""
    usage = data.get("usage")
    prompt, completion = _tokens(usage, "prompt_tokens"), _tokens(usage, "completion_tokens")
    choices = data.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict):
        said = f": {server_message(data, secret)}" if data.get("error") else ""
        return Fault(
            "bad-body", f"the answer holds no choices[0].message{said}", None, None, prompt or 0, completion or 0
        )
    reason = choice.get("finish_reason")
    finish = reason if isinstance(reason, str) else None
    refusal = message.get("refusal")
    if (isinstance(refusal, str) and refusal) or finish == "content_filter":
        said = _well_formed(secret.strip(refusal)) if isinstance(refusal, str) else "stopped by the content filter"
        return Completion(None, said, finish, prompt, completion, name)
    text = _content_text(message.get("content"))
    if text is None or not text.strip():
        hint = "; max_tokens was used up before any text" if finish == "length" else ""
        return Fault("empty-reply", f"the reply is empty{hint}", None, None, prompt or 0, completion or 0)
    return Completion(_well_formed(secret.strip(text)), None, finish, prompt, completion, name)
