"""One call of `build_corpus`: what is there already, what has to be asked, and what came back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator

from optaware.data._board import Board
from optaware.data._parse import parse_rewrite, parse_verdict
from optaware.data._prompts import QUESTIONS, Question
from optaware.data._retry import RETRY_PROMPT_ID, reason_messages, retry_messages, why_rejected
from optaware.data._tries import (
    ANSWERED,
    SAME,
    SETTLED,
    TRANSIENT,
    Stand,
)
from optaware.data._words import count_words
from optaware.errors import EndpointError, Problem
from optaware.llm import ChatModel
from optaware.records import (
    Candidate,
    ChatMessage,
    ChatReply,
    ChatRequest,
    JudgeReason,
    ParseFailure,
    Verdict,
    short_id,
)

__all__ = ["Work"]

_Place = tuple[int, int]
"""Row and attempt."""


class Work(Board):
    """One call of `build_corpus`: asks for what the board lacks."""

    _paid: set[int] | None = None
    """Requests that this corpus paid for, by the first bytes of their ids; made when a reply asks for it."""

    def ask(self, rewriter: ChatModel, judge: ChatModel) -> None:
        """Ask for everything that is missing: a round of rewrites, their judgement, and again for what was rejected."""
        for attempts in self.tries.rounds():
            # The label names the try, but only where there is more than one round.
            label = f", try {attempts[0] + 1}" if attempts[0] >= self.tries.sampled else ""
            if label:
                self._ask_reasons(judge, attempts[0] - 1)
            self._rewrite(rewriter, attempts, label)
            for question in QUESTIONS:
                self._judge(judge, attempts, question, label)

    def _wanted(self, attempts: range) -> Iterator[_Place]:
        for row in range(len(self.examples)):
            for attempt in attempts:
                if attempt < self.tries.sampled or self._wants_retry(row, attempt):
                    yield row, attempt

    def _wants_retry(self, row: int, attempt: int) -> bool:
        if any(self.passed(row, before) for before in range(attempt)) or self.unjudged(row, attempt - 1):
            return False
        return self.stand(row, attempt - 1) in (Stand.UNPARSED, Stand.BLOCKED, Stand.OPEN)

    def _rewrite(self, model: ChatModel, attempts: range, label: str) -> None:
        total = sum(1 for _ in self._wanted(attempts))
        # What is asked for changes nothing in the grades that `_wanted` looks at, so it may run while replies come in.
        left = [0, *(1 for row, attempt in self._wanted(attempts) if self.stand(row, attempt) < SETTLED)]
        requests = (
            request
            for row, attempt in self._wanted(attempts)
            if self.stand(row, attempt) < SETTLED
            for request in self._rewrite_request(row, attempt)
        )
        self._ask(model, requests, sum(left), total, f"rewrite{label}", self._take_rewrite)

    def _rewrite_request(self, row: int, attempt: int) -> Iterator[ChatRequest]:
        example, ref = self.examples[row], self.spec.rewriter
        messages = self._rewriting.messages(example)
        if attempt >= self.tries.sampled:
            told = self._again(row, attempt, messages)
            if told is None:
                return
            messages = told
        # What is longer than the gate lets through need not be written; two tokens a word are plenty.
        longest = self.spec.gate.max_length_ratio * count_words(self.task.span_text(example))
        needed = 32 * math.ceil((2 * longest + 16) / 32)
        yield ChatRequest(
            key=_key("rewrite", attempt, example.id),
            messages=messages,
            max_tokens=max(ref.max_tokens, needed),
            temperature=ref.temperature,
            seed=ref.seed + attempt,
        )

    def _again(self, row: int, attempt: int, messages: tuple[ChatMessage, ...]) -> tuple[ChatMessage, ...] | None:
        last = self.candidates.get(self.tries.slot(row, attempt - 1))
        assert last is not None
        reason = self.reasons.get(self.tries.slot(row, attempt - 1)) if self.reasons else None
        said: dict[Question, JudgeReason] = {} if reason is None else {reason.question: reason}
        why = why_rejected(last, self.checks(last), self.verdicts_of(row, attempt - 1), said)
        return None if why is None else retry_messages(messages, last, why)

    def _take_rewrite(self, row: int, attempt: int, reply: ChatReply) -> None:
        text: str | ParseFailure | None = None
        raw = None if reply.text is None else _whole_characters(reply.text)
        example = self.examples[row]
        if raw is not None and reply.finish_reason == "length":
            text = ParseFailure(raw=raw, why="cut off")
        elif raw is not None:
            text = parse_rewrite(raw, self.task.span_text(example), self._rewriting.wording["heading"])
        self.candidates.add(
            Candidate(
                example_id=example.id,
                attempt=attempt,
                prompt_id=self.spec.rewriter_prompt_id,
                request_id=reply.request_id,
                raw_reply=raw,
                text=text if isinstance(text, str) else None,
                failure=text if isinstance(text, ParseFailure) else None,
                error=_error(reply),
                cached=self._was_paid_before(reply),
                usage=reply.usage,
            )
        )

    def _judge(self, model: ChatModel, attempts: range, question: Question, label: str) -> None:
        asked = left = 0
        for row in range(len(self.examples)):
            for attempt in attempts:
                asked += self.answer(row, attempt, question) >= SETTLED
                left += self.unjudged(row, attempt) == question
        requests = (
            self._judge_request(row, attempt, question)
            for row in range(len(self.examples))
            for attempt in attempts
            if self.unjudged(row, attempt) == question
        )
        take = self._take_verdict(question)
        self._ask(model, requests, left, asked + left, f"judge {question}{label}", take)

    def _judge_request(self, row: int, attempt: int, question: Question) -> ChatRequest:
        ref, example = self.spec.judge, self.examples[row]
        return ChatRequest(
            key=_key(question, attempt, example.id),
            messages=self._judge_messages(row, attempt, question),
            max_tokens=ref.max_tokens,
            temperature=ref.temperature,
            seed=ref.seed,
        )

    def _judge_messages(self, row: int, attempt: int, question: Question) -> tuple[ChatMessage, ...]:
        candidate = self.candidates.get(self.tries.slot(row, attempt))
        assert candidate is not None
        return self._judging[question].messages(self.examples[row], candidate.text or "")

    def _take_verdict(self, question: Question) -> Callable[[int, int, ChatReply], None]:
        def take(row: int, attempt: int, reply: ChatReply) -> None:
            raw = None if reply.text is None else _whole_characters(reply.text)
            answer = None if raw is None else parse_verdict(raw)
            self.verdicts.add(
                Verdict(
                    example_id=self.examples[row].id,
                    attempt=attempt,
                    question=question,
                    prompt_id=self.spec.judge_prompt_ids[question],
                    request_id=reply.request_id,
                    answer=None if isinstance(answer, ParseFailure) else answer,
                    failure=answer if isinstance(answer, ParseFailure) else None,
                    error=_error(reply),
                    raw_reply=raw,
                    cached=self._was_paid_before(reply),
                    usage=reply.usage,
                )
            )

        return take

    def _ask_reasons(self, judge: ChatModel, attempt: int) -> None:
        """Ask the judge why it found another meaning; see `why_rejected` for why `role` is not asked about."""
        reasons = self.reasons
        assert reasons is not None
        rows = [
            row
            for row in range(len(self.examples))
            if self._wants_retry(row, attempt + 1) and self.stand(row, attempt) == Stand.OPEN
            if self.answer(row, attempt, "meaning") not in (SAME, 0)
        ]
        left = [row for row in rows if int(reasons.grades[self.tries.slot(row, attempt)]) < ANSWERED]

        def requests() -> Iterator[ChatRequest]:
            ref = self.spec.judge
            for row in left:
                verdict = self.verdicts_of(row, attempt)["meaning"]
                messages = reason_messages(self._judge_messages(row, attempt, "meaning"), verdict)
                yield ChatRequest(
                    key=_key("reason", attempt, self.examples[row].id),
                    messages=messages,
                    max_tokens=max(64, ref.max_tokens),
                    temperature=ref.temperature,
                    seed=ref.seed,
                )

        def take(row: int, attempt: int, reply: ChatReply) -> None:
            reasons.add(
                JudgeReason(
                    example_id=self.examples[row].id,
                    attempt=attempt,
                    question="meaning",
                    prompt_id=RETRY_PROMPT_ID,
                    request_id=reply.request_id,
                    text=None if reply.text is None else _whole_characters(reply.text),
                    error=_error(reply),
                    cached=self._was_paid_before(reply),
                    usage=reply.usage,
                )
            )

        self._ask(judge, requests(), len(left), len(rows), f"judge's reasons, try {attempt + 1}", take)

    def _ask(
        self,
        model: ChatModel,
        requests: Iterable[ChatRequest],
        left: int,
        total: int,
        what: str,
        take: Callable[[int, int, ChatReply], None],
    ) -> None:
        done = total - left
        if left == 0:
            return
        replies = model.complete(requests)
        try:
            for reply in replies:
                attempt, name = _place(reply.key)
                row = self.index.find(name)
                if row is None or not 0 <= attempt < self.tries.most:
                    raise EndpointError.of(
                        "reply-unasked", repr(reply.key)[:80], "no such request was made", "Report this chat model."
                    )
                take(row, attempt, reply)
                done += 1
                if self.on_progress is not None:
                    self.on_progress(done, total, what)
        finally:
            if callable(close := getattr(replies, "close", None)):
                close()

    def _was_paid_before(self, reply: ChatReply) -> bool:
        """Whether a reply cost this corpus nothing.

        A reply that was asked for on its behalf, and of which no record says that it was paid for, came right before an
        earlier call was killed or stopped: it is in the cache, and still it is this corpus that paid.
        """
        if reply.cached and reply.payer != short_id(self.spec):
            return True
        if reply.cached and self._paid is None:
            self._paid = set()
            for ledger in (self.candidates, self.verdicts, self.reasons):
                records = ledger.paid() if ledger is not None else ()
                self._paid.update(_short(each.request_id) for each in records if not each.cached)
        if self._paid is None:
            return False
        known = reply.cached and _short(reply.request_id) in self._paid
        self._paid.add(_short(reply.request_id))
        return known

    def raise_if_incomplete(self, *, give_up: bool = False) -> None:
        """Raise `EndpointError` when calls failed in a way that may pass, or were never answered.

        Args:
            give_up: Take calls that failed as failed for good, once each was answered by an error.
        """
        rows, last = 0, "no reply"
        floor = TRANSIENT if give_up else SETTLED
        for row in range(len(self.examples)):
            error = self._unfinished(row, floor)
            if error is not None:
                rows, last = rows + 1, error
        if rows:
            raise EndpointError(
                Problem(
                    "calls-failed",
                    f"{rows} of {len(self.examples)} rows of {self.spec.slug}",
                    f"their calls failed, the last with {last!r}; all other rows are done",
                    "Run the same command again: it asks for these rows only. With --give-up they keep the original.",
                    str(self.candidates.path.parent),
                )
            )

    def _unfinished(self, row: int, floor: int) -> str | None:
        for attempt in range(self.tries.most):
            stand = self.stand(row, attempt)
            if stand < floor and (attempt < self.tries.sampled or (stand or self._can_retry(row, attempt))):
                candidate = self.candidates.get(self.tries.slot(row, attempt))
                return (candidate.error if candidate else None) or "no reply"
            question = self.unjudged(row, attempt)
            if question is not None and self.answer(row, attempt, question) < floor:
                verdict = self.verdicts.get(self.tries.verdict_slot(row, attempt, question))
                return (verdict.error if verdict else None) or "no reply"
        return None

    def _can_retry(self, row: int, attempt: int) -> bool:
        if not self._wants_retry(row, attempt):
            return False
        return self._again(row, attempt, ()) is not None


def _short(request_id: str) -> int:
    return int(request_id[:16], 16)


def _key(what: str, attempt: int, name: str) -> str:
    return f"{what}#{attempt}:{name}" if attempt else f"{what}:{name}"


def _place(key: str) -> tuple[int, str]:
    what, _, name = key.partition(":")
    number = what.partition("#")[2]
    return (int(number) if number.isdecimal() else 0), name


def _whole_characters(text: str) -> str:
    """`text` with halves of surrogate pairs replaced: they are no characters and no file can hold them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _error(reply: ChatReply) -> str | None:
    return None if reply.error is None else f"{reply.error_code or 'error'}: {_whole_characters(reply.error)}"
