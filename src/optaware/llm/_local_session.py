"""One run of a local model: chunks are generated in a thread, each reply comes out when its row is finished."""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from optaware.llm._protocol import Done
from optaware.llm._usage import price
from optaware.records import ChatMessage, ChatModelRef, ChatReply, ChatRequest

if TYPE_CHECKING:
    from optaware.models import Generation, KeptPrefixes, LoadedModel

__all__ = ["LocalSession", "prompt_ids", "prompt_text"]

_Asked = tuple[str, ChatRequest]


class _Cancelled(Exception):
    """Unwinds the generating thread; no error."""


class LocalSession:
    """Implements `Session`."""

    def __init__(self, loaded: LoadedModel, kept: KeptPrefixes, ref: ChatModelRef, batch_size: int) -> None:
        self._loaded, self._kept, self._ref, self._batch_size = loaded, kept, ref, batch_size
        self._asked: list[_Asked] = []
        self._done: queue.SimpleQueue[Done | BaseException | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._cancelled = threading.Event()

    def submit(self, request_id: str, request: ChatRequest) -> None:
        """Put a request into the next chunk."""
        self._asked.append((request_id, request))

    def wait(self, timeout_s: float | None = None) -> Done | None:
        """The next finished row; starts a chunk of all that was submitted when none is running."""
        while True:
            if self._thread is None:
                chunk, self._asked = self._asked, []
                self._thread = threading.Thread(target=self._run, args=(chunk,), name="optaware-local", daemon=True)
                self._thread.start()
            try:
                item = self._done.get(timeout=timeout_s)
            except queue.Empty:
                return None
            if isinstance(item, BaseException):
                raise item
            if item is not None:
                return item
            self._thread.join()
            self._thread = None

    def close(self) -> list[Done]:
        """Stop at the next token."""
        self._cancelled.set()
        if self._thread is not None:
            self._thread.join()
        left: list[Done] = []
        while True:
            try:
                item = self._done.get_nowait()
            except queue.Empty:
                return left
            if isinstance(item, Done):
                left.append(item)

    def _run(self, chunk: Sequence[_Asked]) -> None:
        def check(*_: Any) -> None:
            if self._cancelled.is_set():
                raise _Cancelled

        hook = self._loaded.model.register_forward_pre_hook(check)
        try:
            self._chunk(chunk)
            self._done.put(None)
        except _Cancelled:
            self._done.put(None)
        except BaseException as error:
            self._done.put(error)
        finally:
            hook.remove()

    def _chunk(self, chunk: Sequence[_Asked]) -> None:
        """Rows that are sampled alike go through the model together."""
        groups: dict[tuple[float, tuple[str, ...]], list[tuple[_Asked, list[int]]]] = {}
        for asked in chunk:
            ids = self._encode(asked[1].messages)
            if (fault := self._fault(ids, asked[1].max_tokens)) is not None:
                self._done.put(self._failed(asked, fault))
            else:
                groups.setdefault((asked[1].temperature, asked[1].stop), []).append((asked, ids))
        for (temperature, stop), rows in groups.items():
            self._generate(rows, temperature, stop)

    def _generate(self, rows: list[tuple[_Asked, list[int]]], temperature: float, stop: tuple[str, ...]) -> None:
        from optaware.models import generate

        began = time.monotonic()

        def finished(index: int, made: Generation) -> None:
            self._done.put(self._reply(rows[index][0], made, time.monotonic() - began))

        generate(
            self._loaded.model,
            self._loaded.tokenizer,
            [ids for _, ids in rows],
            max_new_tokens=[request.max_tokens for (_, request), _ in rows],
            temperature=temperature,
            # The id holds the request's seed and its content, so rows differ although a corpus has one seed.
            seeds=[int(name[:15], 16) for (name, _), _ in rows],
            stop=stop,
            batch_size=self._batch_size,
            on_done=finished,
            kept=self._kept,
        )

    def _encode(self, messages: Sequence[ChatMessage]) -> list[int]:
        return prompt_ids(self._loaded.tokenizer, messages)

    def _fault(self, ids: Sequence[int], max_tokens: int) -> tuple[str, str] | None:
        config: Any = getattr(self._loaded.model, "config", None)
        positions = getattr(config.get_text_config(), "max_position_embeddings", None) if config is not None else None
        if not ids:
            return "bad-request", "the prompt has no tokens"
        if max_tokens < 1:
            return "bad-request", f"max_tokens is {max_tokens}"
        if positions is not None and len(ids) + max_tokens > positions:
            words = (
                f"the prompt of {len(ids)} tokens and {max_tokens} new ones exceed the model's {positions} positions"
            )
            return "prompt-too-long", words
        return None

    def _failed(self, asked: _Asked, fault: tuple[str, str]) -> Done:
        reply = ChatReply(
            key="",
            request_id=asked[0],
            model=self._ref.model,
            error=fault[1],
            error_code=fault[0],
            usage=price(self._ref, 0, 0),
        )
        return Done(asked[0], reply)

    def _reply(self, asked: _Asked, made: Generation, seconds: float) -> Done:
        empty = not made.text.strip()
        reply = ChatReply(
            key="",
            request_id=asked[0],
            model=self._ref.model,
            text=None if empty else made.text,
            error="the reply is empty" if empty else None,
            error_code="empty-reply" if empty else None,
            finish_reason=made.finish_reason,
            usage=price(self._ref, made.prompt_tokens, made.completion_tokens),
            latency_s=seconds,
        )
        return Done(asked[0], reply)


def prompt_ids(tokenizer: Any, messages: Sequence[ChatMessage]) -> list[int]:
    """Token ids of a prompt, in which only the chat template's own text makes special tokens.

    A text that holds the name of a special token ("<|im_end|>") would otherwise end its turn and speak for somebody
    else. Such texts are tokenized apart, as the letters that they are; all other prompts as one text.
    """
    # A chat template writes its own special tokens.
    add = not tokenizer.chat_template
    marks = _special_marks(tokenizer)
    held = [turn.content for turn in messages if any(mark in turn.content for mark in marks)]
    if not held:
        ids: list[int] = tokenizer(prompt_text(tokenizer, messages), add_special_tokens=add)["input_ids"]
        return ids
    # A sign that no message has, whatever it has, stands for the texts until the template has put them in place.
    signs = (f"\ue000{number}\ue001" for number in itertools.count())
    sign = next(sign for sign in signs if not any(sign in turn.content for turn in messages))
    places = [
        turn.model_copy(update={"content": f"{sign}{held.index(turn.content)}{sign}"}) if turn.content in held else turn
        for turn in messages
    ]
    found: list[int] = []
    for place, part in enumerate(prompt_text(tokenizer, places).split(sign)):
        if place % 2:
            found += tokenizer(held[int(part)], add_special_tokens=False, split_special_tokens=True)["input_ids"]
        elif part:
            found += tokenizer(part, add_special_tokens=add and place == 0)["input_ids"]
    return found


def _special_marks(tokenizer: Any) -> tuple[str, ...]:
    added = getattr(tokenizer, "added_tokens_decoder", None) or {}
    special = [token.content for token in added.values() if token.special]
    return tuple({*special, *(getattr(tokenizer, "all_special_tokens", None) or ())})


def prompt_text(tokenizer: Any, messages: Sequence[ChatMessage]) -> str:
    """The conversation as the model expects it, up to where its answer begins.

    With a chat template that knows no system role, the system text is put before the first user turn. A tokenizer
    without a chat template (a base model's) gets the turns as paragraphs.
    """
    turns = [{"role": turn.role, "content": turn.content} for turn in messages]
    if not tokenizer.chat_template:
        return "\n\n".join([*(turn["content"] for turn in turns), ""])
    try:
        return _templated(tokenizer, turns)
    except Exception:
        # Templates refuse with errors of many kinds; without a system turn there is nothing to mend.
        if not turns or turns[0]["role"] != "system":
            raise
    system, rest = turns[0]["content"], turns[1:]
    if rest and rest[0]["role"] == "user":
        rest = [{"role": "user", "content": f"{system}\n\n{rest[0]['content']}"}, *rest[1:]]
    else:
        rest = [{"role": "user", "content": system}, *rest]
    return _templated(tokenizer, rest)


def _templated(tokenizer: Any, turns: list[dict[str, str]]) -> str:
    text: str = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return text
