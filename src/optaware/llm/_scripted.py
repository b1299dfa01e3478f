"""Replies that are written down beforehand, as a provider like any other: for tests, demonstrations and replays."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from optaware._io import canonical_json, read_jsonl, text_sha256
from optaware.errors import InputError, Problem, ProblemList
from optaware.llm._cache import ReplyCache
from optaware.llm._chat import Chat
from optaware.llm._protocol import Done, Session
from optaware.llm._usage import Budget, OnUsage, price
from optaware.records import ChatModelRef, ChatReply, ChatRequest, Usage, parse_record
from optaware.records._base import Record

__all__ = ["ScriptLine", "ScriptedProvider", "scripted_chat"]

Answer = Callable[[ChatRequest], "str | ChatReply | None"]


class ScriptLine(Record):
    """One line of a script. The first line that fits a request answers it.

    `key` fits the request's key; `contains` the text of its last message; a line with neither fits every request.
    """

    key: str | None = None
    contains: str | None = None
    text: str | None = None
    error: str | None = None
    error_code: str = "scripted"
    finish_reason: str | None = "stop"
    prompt_tokens: Annotated[int | None, Field(ge=0)] = None
    completion_tokens: Annotated[int | None, Field(ge=0)] = None

    @model_validator(mode="after")
    def _one_outcome(self) -> ScriptLine:
        if (self.text is None) == (self.error is None):
            raise ValueError("exactly one of text and error is given")
        return self


class ScriptedProvider:
    """Answers from a function; tokens are counted as words where the script does not say.

    Args:
        answer: Gives the reply to a request: text, a whole `ChatReply` (its `key` and `request_id` are filled in), or
            None for an error of the row with code `no-scripted-reply`.
        ref: Model name, prices and seed.
        script_id: What makes the script's replies its own; the hash of the file.
    """

    concurrency = 1
    window = 1

    def __init__(self, answer: Answer, ref: ChatModelRef, script_id: str) -> None:
        self._answer, self._ref = answer, ref
        self.identity = f"scripted:{script_id}"

    @classmethod
    def from_file(cls, ref: ChatModelRef) -> ScriptedProvider:
        """Read the script at `ref.model`, a JSONL file of `ScriptLine`s.

        Raises:
            InputError: Missing file or malformed lines, all at once.
        """
        path = Path(ref.model)
        rows, lines, problems = read_jsonl(path), [], ProblemList(str(path))
        for number, row in enumerate(rows, start=1):
            with problems.collecting():
                lines.append(parse_record(ScriptLine, row, f"{path}: row {number}"))
        problems.raise_if_any()
        if not lines:
            raise InputError(Problem("script-empty", path.name, "it has no lines", "Write at least one.", str(path)))
        by_key: dict[str, ScriptLine] = {}
        for line in lines:
            if line.key is not None and line.contains is None:
                by_key.setdefault(line.key, line)
        others = [line for line in lines if line.key is None or line.contains is not None]

        def answer(request: ChatRequest) -> ChatReply | None:
            line = by_key.get(request.key) or next((line for line in others if _fits(line, request)), None)
            return None if line is None else _reply(line, request, ref)

        return cls(answer, ref, text_sha256(canonical_json(rows))[:16])

    def open(self) -> Session:
        """A session that answers at once."""
        return _ScriptedSession(self._answer, self._ref)


class _ScriptedSession:
    def __init__(self, answer: Answer, ref: ChatModelRef) -> None:
        self._answer, self._ref = answer, ref
        self._asked: deque[tuple[str, ChatRequest]] = deque()

    def submit(self, request_id: str, request: ChatRequest) -> None:
        self._asked.append((request_id, request))

    def wait(self, timeout_s: float | None = None) -> Done | None:
        del timeout_s  # the answer is always at hand
        name, request = self._asked.popleft()
        said = self._answer(request)
        if isinstance(said, ChatReply):
            return Done(name, said.model_copy(update={"request_id": name}))
        reply = ChatReply(
            key="", request_id=name, model=self._ref.model, error="the script has no reply to this request"
        )
        if said is None:
            return Done(name, reply.model_copy(update={"error_code": "no-scripted-reply"}))
        told = {"text": said, "error": None, "finish_reason": "stop", "usage": _usage(request, said, self._ref)}
        return Done(name, reply.model_copy(update=told))

    def close(self) -> list[Done]:
        self._asked.clear()
        return []


def _fits(line: ScriptLine, request: ChatRequest) -> bool:
    last = request.messages[-1].content if request.messages else ""
    return line.key in (None, request.key) and (line.contains is None or line.contains in last)


def _words(text: str | None) -> int:
    return len((text or "").split())


def _usage(request: ChatRequest, text: str | None, ref: ChatModelRef) -> Usage:
    return price(ref, sum(_words(turn.content) for turn in request.messages), _words(text))


def _reply(line: ScriptLine, request: ChatRequest, ref: ChatModelRef) -> ChatReply:
    usage = _usage(request, line.text, ref)
    prompt = usage.prompt_tokens if line.prompt_tokens is None else line.prompt_tokens
    completion = usage.completion_tokens if line.completion_tokens is None else line.completion_tokens
    return ChatReply(
        key="",
        request_id="",
        model=ref.model,
        text=line.text,
        error=line.error,
        error_code=None if line.error is None else line.error_code,
        finish_reason=line.finish_reason if line.error is None else None,
        usage=price(ref, prompt, completion),
    )


def scripted_chat(
    answer: Answer | Mapping[str, str],
    *,
    name: str = "scripted",
    cache: Path | None = None,
    on_usage: OnUsage | None = None,
    **settings: Any,
) -> Chat:
    """A chat model that answers from a Python function, or from a mapping of request keys to texts.

    Args:
        answer: See `ScriptedProvider`; a key that the mapping lacks gives an error of that row.
        name: Stands for the script in the identity; two scripts that share a cache need two names.
        cache: Folder of a `ReplyCache`; None: nothing is kept.
        on_usage: Called after every reply.
        settings: Further fields of `ChatModelRef` (prices, budgets).
    """
    ref = ChatModelRef(provider="scripted", model=name, **settings)
    function: Answer = (lambda request: answer.get(request.key)) if isinstance(answer, Mapping) else answer
    provider = ScriptedProvider(function, ref, name)
    kept = None if cache is None else ReplyCache(cache)
    return Chat(provider, cache=kept, budget=Budget.of(ref), on_usage=on_usage)
