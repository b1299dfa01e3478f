"""One call of `build_corpus`: what is there already, what has to be asked, and what came back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

from optaware.data._gate import decide, open_question, screen
from optaware.data._ledger import Ledger, is_transient
from optaware.data._parse import parse_rewrite, parse_verdict
from optaware.data._prompts import QUESTIONS, JudgePrompt, Question, RewriterPrompt
from optaware.data._words import count_words
from optaware.errors import EndpointError, Problem
from optaware.llm import ChatModel
from optaware.records import (
    AutomaticCheck,
    Candidate,
    ChatReply,
    ChatRequest,
    CorpusSpec,
    Decision,
    Example,
    ParseFailure,
    Verdict,
)

__all__ = ["OnProgress", "Work"]

OnProgress = Callable[[int, int, str], None]
"""Called as `(done, total, what)` after every reply; `what` is `rewrite`, `judge meaning` or `judge role`."""


class Work:
    """One call of `build_corpus`."""

    def __init__(
        self,
        spec: CorpusSpec,
        examples: Sequence[Example],
        prompts: tuple[RewriterPrompt, Mapping[Question, JudgePrompt]],
        folder: Path,
        stack: ExitStack,
        on_progress: OnProgress | None,
    ) -> None:
        self.spec, self.examples = spec, examples
        self._rewriting, self._judging = prompts
        self.task = self._rewriting.task
        self._on_progress = on_progress
        self._by_id = {example.id: example for example in examples}
        known = self._by_id
        self.candidates: Ledger[str, Candidate] = stack.enter_context(
            Ledger(
                folder / "candidates.jsonl",
                Candidate,
                key=lambda record: record.example_id,
                wanted=lambda record: record.example_id in known and record.prompt_id == spec.rewriter_prompt_id,
            )
        )
        self.verdicts: Ledger[tuple[str, Question], Verdict] = stack.enter_context(
            Ledger(
                folder / "verdicts.jsonl",
                Verdict,
                key=lambda record: (record.example_id, record.question),
                wanted=lambda record: (
                    record.example_id in known and record.prompt_id == spec.judge_prompt_ids[record.question]
                ),
            )
        )
        self._checks: dict[str, tuple[AutomaticCheck, ...]] = {}

    @cached_property
    def _told(self) -> str:
        return self._rewriting.head_text

    def checks(self, candidate: Candidate) -> tuple[AutomaticCheck, ...]:
        """The automatic checks of a candidate."""
        name = candidate.example_id
        if name not in self._checks:
            self._checks[name] = screen(self.task, self._by_id[name], candidate, self.spec.gate, self._told)
        return self._checks[name]

    def _answers(self, name: str) -> dict[Question, Verdict]:
        found = {question: self.verdicts.settled((name, question)) for question in QUESTIONS}
        return {question: verdict for question, verdict in found.items() if verdict is not None}

    def rewrite(self, model: ChatModel) -> None:
        """Ask for the rewrites that are missing."""
        left = [example for example in self.examples if self.candidates.settled(example.id) is None]
        self._ask(model, map(self._rewrite_request, left), len(left), len(self.examples), "rewrite", self._take_rewrite)

    def _rewrite_request(self, example: Example) -> ChatRequest:
        # What is longer than the gate lets through need not be written; two tokens a word are plenty.
        longest = self.spec.gate.max_length_ratio * count_words(self.task.span_text(example))
        needed = 32 * math.ceil((2 * longest + 16) / 32)
        ref = self.spec.rewriter
        return ChatRequest(
            key=f"rewrite:{example.id}",
            messages=self._rewriting.messages(example),
            max_tokens=max(ref.max_tokens, needed),
            temperature=ref.temperature,
            seed=ref.seed,
        )

    def _take_rewrite(self, name: str, reply: ChatReply) -> None:
        text: str | ParseFailure | None = None
        raw = None if reply.text is None else _whole_characters(reply.text)
        if raw is not None and reply.finish_reason == "length":
            text = ParseFailure(raw=raw, why="cut off")
        elif raw is not None:
            before = self.task.span_text(self._by_id[name])
            text = parse_rewrite(raw, before, self._rewriting.wording["heading"])
        self.candidates.add(
            Candidate(
                example_id=name,
                prompt_id=self.spec.rewriter_prompt_id,
                request_id=reply.request_id,
                raw_reply=raw,
                text=text if isinstance(text, str) else None,
                failure=text if isinstance(text, ParseFailure) else None,
                error=_error(reply),
                cached=reply.cached,
                usage=reply.usage,
            )
        )

    def judge(self, model: ChatModel, question: Question) -> None:
        """Ask the judge what is missing of one question."""
        asked, left = 0, []
        for example in self.examples:
            candidate = self.candidates.settled(example.id)
            if candidate is None:
                continue
            answers = self._answers(example.id)
            asked += question in answers
            if open_question(candidate, self.checks(candidate), answers) == question:
                left.append((example, candidate.text or ""))
        self._ask(
            model,
            (self._judge_request(question, example, text) for example, text in left),
            len(left),
            asked + len(left),
            f"judge {question}",
            lambda name, reply: self._take_verdict(question, name, reply),
        )

    def _judge_request(self, question: Question, example: Example, text: str) -> ChatRequest:
        ref = self.spec.judge
        return ChatRequest(
            key=f"{question}:{example.id}",
            messages=self._judging[question].messages(example, text),
            max_tokens=ref.max_tokens,
            temperature=ref.temperature,
            seed=ref.seed,
        )

    def _take_verdict(self, question: Question, name: str, reply: ChatReply) -> None:
        raw = None if reply.text is None else _whole_characters(reply.text)
        answer = None if raw is None else parse_verdict(raw)
        self.verdicts.add(
            Verdict(
                example_id=name,
                question=question,
                prompt_id=self.spec.judge_prompt_ids[question],
                request_id=reply.request_id,
                answer=None if isinstance(answer, ParseFailure) else answer,
                failure=answer if isinstance(answer, ParseFailure) else None,
                error=_error(reply),
                raw_reply=raw,
                cached=reply.cached,
                usage=reply.usage,
            )
        )

    def _ask(
        self,
        model: ChatModel,
        requests: Iterable[ChatRequest],
        left: int,
        total: int,
        what: str,
        take: Callable[[str, ChatReply], None],
    ) -> None:
        done = total - left
        if left == 0:
            return
        replies = model.complete(requests)
        try:
            for reply in replies:
                name = reply.key.split(":", 1)[-1]
                if name not in self._by_id:
                    raise EndpointError.of(
                        "reply-unasked", repr(reply.key)[:80], "no such request was made", "Report this chat model."
                    )
                take(name, reply)
                done += 1
                if self._on_progress is not None:
                    self._on_progress(done, total, what)
        finally:
            if callable(close := getattr(replies, "close", None)):
                close()

    def raise_if_incomplete(self) -> None:
        """Raise `EndpointError` when calls failed in a way that may pass, or were never answered."""
        errors: list[str] = []
        for example in self.examples:
            candidate = self.candidates.get(example.id)
            if candidate is None or is_transient(candidate):
                errors.append((candidate.error if candidate else None) or "no reply")
                continue
            question = open_question(candidate, self.checks(candidate), self._answers(example.id))
            if question is not None:
                verdict = self.verdicts.get((example.id, question))
                errors.append((verdict.error if verdict else None) or "no reply")
        if errors:
            raise EndpointError(
                Problem(
                    "calls-failed",
                    f"{len(errors)} of {len(self.examples)} rows of {self.spec.slug}",
                    f"their calls failed, the last with {errors[-1]!r}; all other rows are done",
                    "Run the same command again: it asks for these rows only.",
                    str(self.candidates.path.parent),
                )
            )

    def decisions(self) -> list[Decision]:
        """What the gate says of each row, in order."""
        found = []
        for example in self.examples:
            candidate = self.candidates.get(example.id)
            assert candidate is not None
            before = self.task.span_text(example)
            found.append(decide(example, before, candidate, self.checks(candidate), self._answers(example.id)))
        return found


def _whole_characters(text: str) -> str:
    """`text` with halves of surrogate pairs replaced: they are no characters and no file can hold them."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _error(reply: ChatReply) -> str | None:
    return None if reply.error is None else f"{reply.error_code or 'error'}: {_whole_characters(reply.error)}"
