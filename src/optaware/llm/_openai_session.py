"""One run against an endpoint: an event loop in a thread of its own, and what it does with faults."""

from __future__ import annotations

import asyncio
import logging
import queue
import random
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

from optaware.errors import OptawareError
from optaware.llm._endpoint import Endpoint
from optaware.llm._known import KnownAnswers
from optaware.llm._protocol import Done
from optaware.llm._retry import RetryPolicy, is_retryable, retry_after_s
from optaware.llm._usage import add_usage, price
from optaware.llm._wire import Completion, Dialect, Fault, completion_from, server_message
from optaware.records import ChatModelRef, ChatReply, ChatRequest, Usage

__all__ = ["OpenAISession"]

logger = logging.getLogger("optaware.llm")


class OpenAISession:
    """Implements `Session`. Results pass through a queue that the driver's window bounds."""

    def __init__(
        self,
        ref: ChatModelRef,
        endpoint: Endpoint,
        policy: RetryPolicy,
        draw: random.Random,
        sleep: Callable[[float], Awaitable[None]] | None,
    ) -> None:
        import openai  # here, so that a fully cached run never loads it, and an import error reaches the caller

        from optaware.llm._connection import drop, keep_in_step

        self._openai, self._keep_in_step, self._drop = openai, keep_in_step, drop
        self._ref, self._endpoint, self._policy, self._draw = ref, endpoint, policy, draw
        self._sleep = sleep or asyncio.sleep
        self._secret = endpoint.secret()
        self._dialect = Dialect()
        self._done: queue.SimpleQueue[Done | BaseException] = queue.SimpleQueue()
        self._began: float | None = None
        self._reached = False
        self._failed_in_a_row = 0
        self._not_before = 0.0
        self._told_to_wait = 0
        self._known_answers = KnownAnswers()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="optaware-chat", daemon=True)
        self._thread.start()
        self._ready.wait()

    # -- the caller's thread -----------------------------------------------------------------------------------------

    def submit(self, request_id: str, request: ChatRequest) -> None:
        """Hand a request to the loop."""
        self._loop.call_soon_threadsafe(self._start, request_id, request)

    def wait(self, timeout_s: float | None = None) -> Done | None:
        """The next finished request."""
        try:
            item = self._done.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> list[Done]:
        """Cancel, close connections, end the thread."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            # A name look-up that hangs cannot be cancelled; the thread is a daemon and holds nothing that matters.
            self._thread.join(timeout=10.0)
        left: list[Done] = []
        while True:
            try:
                item = self._done.get_nowait()
            except queue.Empty:
                return left
            if isinstance(item, Done):
                left.append(item)

    # -- the loop's thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:
            self._done.put(error)
        finally:
            self._ready.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._slots = asyncio.Semaphore(max(1, self._ref.concurrency))
        self._tasks: set[asyncio.Task[None]] = set()
        connect = min(self._ref.timeout_s, self._policy.startup_s)
        client = self._openai.AsyncOpenAI(
            api_key=self._secret.reveal() or "none",
            base_url=self._endpoint.url,
            max_retries=0,
            timeout=self._openai.Timeout(self._ref.timeout_s, connect=connect),
            http_client=self._openai.DefaultAsyncHttpxClient(event_hooks={"response": [self._keep_in_step]}),
        )
        self._create = client.chat.completions.with_raw_response.create
        async with client:
            self._ready.set()
            await self._stop.wait()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self, request_id: str, request: ChatRequest) -> None:
        task = self._loop.create_task(self._finish(request_id, request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _finish(self, request_id: str, request: ChatRequest) -> None:
        try:
            async with self._slots:
                self._done.put(await self._answer(request_id, request))
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self._done.put(error)

    async def _answer(self, request_id: str, request: ChatRequest) -> Done:
        began, used, attempts, bad_bodies = time.monotonic(), Usage(), 0, 0
        repeated: bytes | None = None
        while True:
            await self._gate()
            attempts += 1
            outcome, sent = await self._attempt(request, repeated)
            used = add_usage(used, price(self._ref, outcome.prompt_tokens or 0, outcome.completion_tokens or 0))
            reply = ChatReply(
                key="",
                request_id=request_id,
                model=self._ref.model,
                error="",
                usage=used,
                attempts=attempts,
                latency_s=time.monotonic() - began,
            )
            if isinstance(outcome, Completion):
                self._failed_in_a_row = self._told_to_wait = 0
                return _finished(request, reply, outcome)
            logger.debug("request %s, attempt %d: %s (%s)", request_id[:12], attempts, outcome.code, outcome.detail)
            if self._dialect.learn(outcome, sent):
                continue
            if stop := self._hopeless(outcome):
                return Done(request_id, None, stop)
            bad_bodies += outcome.code in ("bad-body", "empty-reply")
            repeated = outcome.digest or repeated
            again = (
                bad_bodies <= self._policy.bad_body_retries
                if outcome.code in ("bad-body", "empty-reply")
                else not outcome.of_this_row
            )
            if not again or attempts > self._policy.max_retries:
                return self._failed(request_id, reply, outcome)
            await self._pause(outcome, attempts)

    async def _gate(self) -> None:
        """When the endpoint is shut, all requests wait; a little apart, so that they do not return at once."""
        left = self._not_before - time.monotonic()
        if left > 0:
            await self._sleep(left + self._policy.backoff_s(1, self._draw))

    async def _attempt(self, request: ChatRequest, repeated: bytes | None) -> tuple[Completion | Fault, dict[str, Any]]:
        openai, sent = self._openai, self._dialect.parameters(self._ref.model, request)
        self._began = self._began or time.monotonic()
        try:
            # The SDK's limit is per read; this one holds for the whole call, also when bytes only trickle in.
            async with asyncio.timeout(self._ref.timeout_s):
                # The SDK walks through every message to rename fields; past it, in `extra_body`, they go out as they
                # are, which takes half of a call's processor time off (some twenty messages with few-shot examples).
                answer = await self._create(**{**sent, "messages": []}, extra_body={"messages": sent["messages"]})
                body = answer.http_response.content
        except TimeoutError:
            return Fault("timeout", f"no full answer within {self._ref.timeout_s:g} s"), sent
        except openai.APIStatusError as error:
            self._reached = True
            detail = server_message(error.body, self._secret)
            wait = retry_after_s(error.response.headers, time.time())
            return Fault(f"http-{error.status_code}", detail, error.status_code, wait), sent
        except openai.APITimeoutError as error:
            if type(error.__cause__).__name__ == "ConnectTimeout":
                return Fault("connection", "the connection was not accepted in time"), sent
            return Fault("timeout", f"no full answer within {self._ref.timeout_s:g} s"), sent
        except openai.APIError as error:
            return Fault("connection", self._cause(error)), sent
        except (UnicodeError, ValueError) as error:
            return Fault("bad-request", f"the request cannot be sent as JSON ({type(error).__name__})"), sent
        self._reached = True
        found = completion_from(body, self._secret)
        if not isinstance(found, Completion):
            return found, sent
        if (digest := self._known_answers.repeated(body, found, repeated)) is not None:
            # The connection is out of step: what comes next on it answers an earlier request.
            await self._drop(answer.http_response.extensions)
            words = "the same answer, with the same id, was given to another request before"
            billed = found.prompt_tokens or 0, found.completion_tokens or 0
            return Fault("repeated-answer", words, None, None, *billed, digest), sent
        return found, sent

    def _cause(self, error: BaseException) -> str:
        cause = error.__cause__ or error
        return self._secret.hide(f"{type(cause).__name__}: {cause}")[:200]

    def _hopeless(self, fault: Fault) -> OptawareError | None:
        """The error that ends the run, when this fault shows that nothing else will come through either."""
        if fault.status is not None:
            waits_too_long = (fault.wait_s or 0.0) > self._policy.retry_after_cap_s
            if fault.of_this_row or (is_retryable(fault.status) and not fault.quota_spent and not waits_too_long):
                return None
            return self._endpoint.refused(fault, bool(self._secret.reveal()))
        elapsed = time.monotonic() - (self._began or 0.0)
        if fault.code == "connection" and not self._reached and elapsed >= self._policy.startup_s:
            return self._endpoint.unreachable(fault, elapsed)
        return None

    async def _pause(self, fault: Fault, attempts: int) -> None:
        if fault.wait_s is not None:
            # One request that was told to wait between answers to others waits by itself: some gateways turn single
            # requests away. Two with no answer in between mean the limit of all, and all wait.
            self._told_to_wait += 1
            if self._told_to_wait > 1 or self._ref.concurrency <= 1:
                self._not_before = max(self._not_before, time.monotonic() + fault.wait_s)
            else:
                await self._sleep(fault.wait_s + self._policy.backoff_s(1, self._draw))
            return
        pause = self._policy.backoff_s(attempts, self._draw)
        # Until the endpoint has answered once, waits are short: whether it is there at all must be known soon.
        await self._sleep(pause if self._reached else min(pause, self._policy.startup_s / 4))

    def _failed(self, request_id: str, reply: ChatReply, fault: Fault) -> Done:
        outage = fault.code in ("timeout", "connection") or (fault.status or 0) == 429 or (fault.status or 0) >= 500
        self._failed_in_a_row = self._failed_in_a_row + 1 if outage else 0
        if fault.code == "connection" and not self._reached:
            return Done(request_id, None, self._endpoint.unreachable(fault, reply.latency_s))
        if self._failed_in_a_row >= self._policy.give_up_after:
            return Done(request_id, None, self._endpoint.gone(fault, self._failed_in_a_row))
        words = f"{fault.detail or fault.code} (after {reply.attempts} attempt{'s' * (reply.attempts > 1)})"
        return Done(request_id, reply.model_copy(update={"error": words, "error_code": fault.code}))


def _finished(request: ChatRequest, reply: ChatReply, answer: Completion) -> Done:
    counted = answer.prompt_tokens is not None and answer.completion_tokens is not None
    characters = sum(len(turn.content) for turn in request.messages) + len(answer.text or answer.refusal or "")
    if answer.text is not None:
        outcome = {"text": answer.text, "error": None}
    else:
        outcome = {"error": f"the model refused: {answer.refusal}", "error_code": "refusal"}
    return Done(
        reply.request_id,
        reply.model_copy(update={**outcome, "finish_reason": answer.finish_reason}),
        # About four characters a token: an endpoint that does not count must not make a budget endless.
        billed_tokens=None if counted else -(-characters // 4),
    )
