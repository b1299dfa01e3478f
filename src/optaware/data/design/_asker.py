"""Asking about the template: bounded, logged, with another try when a reply cannot be used."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from optaware._io import JsonlAppender
from optaware.data._ledger import FINAL_CODES
from optaware.data.design._replies import Lines
from optaware.errors import BudgetExhausted, EndpointError, ModelError
from optaware.llm import ChatModel, load_template
from optaware.llm._usage import add_usage
from optaware.records import ChatMessage, ChatModelRef, ChatReply, ChatRequest, Exchange, Usage

__all__ = ["PROMPTS", "Asker", "Counter", "OnStep"]

PROMPTS = Path(__file__).parents[1] / "templates" / "design"
OnStep = Callable[[str], None]
"""Called with a line on what is going on; what it raises stops the build in good order."""


_TOO_LONG = frozenset({"prompt-too-long", "http-413"})


def _ended(reply: ChatReply) -> str:
    """The reply's text; of one that was cut off, what stands before its last, unfinished sentence."""
    text = reply.text or ""
    if reply.finish_reason != "length":
        return text
    found = re.match(r".*[.!?](?=\s|$)", text, re.DOTALL)
    return found[0] if found else ""


class Counter:
    """Requests and tokens of a build, over all its phases."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.calls = 0
        self.cached = 0
        self.usage = Usage()

    def claim(self, calls: int) -> None:
        """Raise `BudgetExhausted` when so many more requests would be more than the build may make."""
        if self.calls + calls > self.most:
            raise BudgetExhausted.of(
                "design-calls",
                f"{self.calls} requests and {calls} to come",
                f"the build may make {self.most}",
                "Raise --max-calls and run the same command again: finished replies are kept.",
            )

    def add(self, calls: int, cached: int, usage: Usage) -> None:
        """Count requests that were answered."""
        self.calls += calls
        self.cached += cached
        self.usage = add_usage(self.usage, usage)


class Asker:
    """Puts questions about the template to one chat model and keeps what was said in `exchanges.jsonl`.

    Args:
        chat: Who answers.
        ref: Its settings.
        counter: Counts and bounds the requests.
        path: The log; it is written anew, because the cache gives earlier replies back.
        attempts: Replies asked for until one can be used.
        reply_tokens: Tokens of one reply.
        on_step: Told what goes on.
    """

    def __init__(
        self,
        chat: ChatModel,
        ref: ChatModelRef,
        counter: Counter,
        path: Path,
        attempts: int,
        reply_tokens: int,
        on_step: OnStep | None,
    ) -> None:
        self._chat, self._ref, self._counter = chat, ref, counter
        self._attempts, self._reply_tokens = attempts, reply_tokens
        self._on_step = on_step
        path.unlink(missing_ok=True)
        self._log = JsonlAppender(path)

    def close(self) -> None:
        """Close the log."""
        self._log.close()

    def say(self, line: str) -> None:
        """Tell the callback what goes on."""
        if self._on_step is not None:
            self._on_step(line)

    def lines(
        self,
        key: str,
        template: str,
        read: Callable[[str, str], Lines],
        *,
        none_is_fine: bool = False,
        **context: object,
    ) -> Lines:
        """Ask with a prompt of `templates/design`, until a reply holds something that can be used.

        Args:
            key: Name of the request.
            template: Name of the prompt.
            read: Takes the reply and the prompt, and gives lines.
            none_is_fine: A reply without a usable line is asked for once only, and is an answer.
            context: What the prompt needs.

        Returns:
            The lines of the first reply that has any, else what the last reply had (none).
        """
        prompt = load_template(PROMPTS / f"{template}.jinja").render(**context)
        turns = [ChatMessage(role="user", content=prompt)]
        found = Lines((), ())
        for attempt in range(1, self._attempts + 1):
            self.say(key if attempt == 1 else f"{key}, try {attempt}")
            reply, seconds = self._ask(f"{key}#{attempt}", turns)
            found = read(_ended(reply), prompt) if reply.text is not None else Lines((), (str(reply.error),))
            self._keep(f"{key}#{attempt}", turns, reply, seconds, found)
            if found.kept or none_is_fine:
                return found
            told = load_template(PROMPTS / "retry.jinja").render(faults=list(found.dropped[:6]))
            said = ChatMessage(role="assistant", content=reply.text or "(no reply)")
            turns = [turns[0], said, ChatMessage(role="user", content=told)]
        return found

    def questions(
        self,
        key: str,
        template: str,
        questions: Sequence[str],
        read: Callable[[str, str, Sequence[str]], Lines],
        **context: object,
    ) -> list[str]:
        """Ask several questions on the same matter at once; each may be answered by a line or by none.

        The prompts differ in the question at their end only, so a local model reads the rest of them once.

        Args:
            key: Name of the requests.
            template: Name of the prompt.
            questions: The questions.
            read: Takes a reply, its prompt and the lines taken so far.
            context: What the prompt needs beside `question`.

        Returns:
            The lines, in the order of the questions.
        """
        self.say(key)
        loaded = load_template(PROMPTS / f"{template}.jinja")
        prompts = {f"{key}, question {n}": loaded.render(**context, question=q) for n, q in enumerate(questions, 1)}
        turns = {name: [ChatMessage(role="user", content=prompt)] for name, prompt in prompts.items()}
        found: list[str] = []
        for name, (reply, seconds) in self._ask_all(turns).items():
            text = _ended(reply)
            lines = read(text, prompts[name], found) if reply.text is not None else Lines((), (str(reply.error),))
            self._keep(name, turns[name], reply, seconds, lines)
            found += lines.kept
        return found

    def _ask(self, key: str, turns: Sequence[ChatMessage]) -> tuple[ChatReply, float]:
        return self._ask_all({key: turns})[key]

    def _ask_all(self, asked: Mapping[str, Sequence[ChatMessage]]) -> dict[str, tuple[ChatReply, float]]:
        """Replies in the order of the requests, with the seconds that all of them took together."""
        self._counter.claim(len(asked))
        requests = [
            ChatRequest(
                key=key,
                messages=tuple(turns),
                max_tokens=self._reply_tokens,
                temperature=self._ref.temperature,
                seed=self._ref.seed,
            )
            for key, turns in asked.items()
        ]
        began = time.monotonic()
        replies = {reply.key: reply for reply in self._chat.complete(requests)}
        return {key: (self._checked(key, replies.get(key)), time.monotonic() - began) for key in asked}

    def _checked(self, key: str, reply: ChatReply | None) -> ChatReply:
        if reply is None:
            raise EndpointError.of("calls-failed", key, "there was no reply", "Run the same command again.")
        self._counter.add(1, int(reply.cached), reply.usage)
        if reply.error_code in _TOO_LONG:
            raise ModelError.of(
                "design-too-long",
                key,
                f"the model cannot take the prompt: {reply.error}",
                "Give a smaller --context-chars, or fewer --points and --rules.",
            )
        if reply.error is not None and (reply.error_code or "") not in FINAL_CODES:
            raise EndpointError.of(
                "calls-failed",
                key,
                f"the call failed with {reply.error!r}",
                "Run the same command again: it goes on with this request.",
            )
        return reply

    def _keep(self, key: str, turns: Sequence[ChatMessage], reply: ChatReply, seconds: float, found: Lines) -> None:
        said = Exchange(
            key=key,
            messages=tuple(turns),
            reply=reply.text,
            error=reply.error,
            request_id=reply.request_id,
            cached=reply.cached,
            usage=reply.usage,
            seconds=round(seconds, 2),
            kept=found.kept,
            dropped=found.dropped,
        )
        self._log.append(said.to_json())
