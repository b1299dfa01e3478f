"""Asks versions of a judge about labelled pairs, and remembers every ballot and what it cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from optaware.data._prompts import QUESTIONS, Question, judge_prompts
from optaware.data.judge._measure import LabelledPair, Verdicts
from optaware.data.judge._panel import counted, gather
from optaware.errors import EndpointError, Problem
from optaware.llm import ChatModel
from optaware.records import (
    Ballot,
    ChatModelRef,
    ChatRequest,
    JudgeTemplate,
    PresentationOrder,
    Usage,
    VoteRule,
)
from optaware.tasks import Task

__all__ = ["Bench", "Counting"]

BallotKey = tuple[str, Question, PresentationOrder, int]
Counting = tuple[tuple[int, ...], tuple[PresentationOrder, ...], VoteRule]
"""Which members' ballots in which orders count, and by which rule."""


class Bench:
    """Asks judges about pairs.

    Args:
        task: The task.
        models: The judges; the first is the one that the others vote beside.
        refs: Their settings, in the same order.
        on_progress: Called as `(done, total, what)` after every pair and question.
    """

    def __init__(
        self,
        task: Task,
        models: Sequence[ChatModel],
        refs: Sequence[ChatModelRef],
        on_progress: Callable[[int, int, str], None] | None = None,
    ) -> None:
        self.task, self.models, self._refs, self._on_progress = task, tuple(models), tuple(refs), on_progress
        self.calls = self.cached = 0
        self.usage = Usage()
        self._known: dict[str, dict[BallotKey, Ballot]] = {}

    def ballots(
        self, judge: JudgeTemplate, pairs: Sequence[LabelledPair], what: str, *, first_only: bool = False
    ) -> dict[BallotKey, Ballot]:
        """All ballots of a judge on pairs: every member, every order that the judge has, both questions.

        Args:
            judge: The version.
            pairs: The pairs.
            what: What is being done, for the progress.
            first_only: Ask the first member in the first order only.

        Raises:
            EndpointError: Calls failed in a way that may pass.
        """
        known = self._known.setdefault(_content(judge), {})
        models = self.models[:1] if first_only else self.models
        orders = judge.orders[:1] if first_only else judge.orders
        wanted = [
            (pair, question)
            for question in QUESTIONS
            for pair in pairs
            if any((pair.pair.id, question, order, m) not in known for order in orders for m in range(len(models)))
        ]
        failed = ""
        done = 0
        for request, said in gather(models, orders, self._requests(judge, wanted)):
            pair, question = wanted[int(request.key.split(":", 1)[0])]
            for one in said:
                self._count(one.reply.usage, one.reply.cached)
                if one.may_pass:
                    failed = one.why
                    continue
                known[pair.pair.id, question, one.order, one.member] = Ballot(
                    pair_id=pair.pair.id,
                    question=question,
                    order=one.order,
                    member=one.member,
                    answer=one.answer,
                    why=one.why,
                    cached=one.reply.cached,
                    usage=one.reply.usage,
                )
            done += 1
            if self._on_progress is not None:
                self._on_progress(done, len(wanted), what)
        if failed:
            raise EndpointError(
                Problem(
                    "calls-failed",
                    what,
                    f"calls failed, the last with {failed!r}",
                    "Run the same command again: it asks for what is missing only.",
                )
            )
        return known

    def verdicts(self, judge: JudgeTemplate, counting: Counting) -> Callable[[LabelledPair], Verdicts]:
        """What a judge said of a pair when its ballots are counted so; the ballots must be there."""
        known = self._known[_content(judge)]
        members, orders, rule = counting

        def said(pair: LabelledPair) -> Verdicts:
            return {
                question: counted(
                    [known[pair.pair.id, question, order, member].answer for member in members for order in orders],
                    rule,
                )
                for question in QUESTIONS
            }

        return said

    def _requests(self, judge: JudgeTemplate, wanted: Sequence[tuple[LabelledPair, Question]]) -> Iterator[ChatRequest]:
        prompts = judge_prompts(self.task, judge=judge)
        ref = self._refs[0]
        for place, (pair, question) in enumerate(wanted):
            yield ChatRequest(
                key=f"{place}:{question}:{pair.pair.id}",
                messages=prompts[question].messages(pair.example, pair.pair.rewritten),
                max_tokens=ref.max_tokens,
                temperature=ref.temperature,
                seed=ref.seed,
            )

    def _count(self, usage: Usage, cached: bool) -> None:
        self.calls += 1
        self.cached += cached
        if cached:
            return
        costs = [cost for cost in (self.usage.cost_usd, usage.cost_usd) if cost is not None]
        self.usage = Usage(
            prompt_tokens=self.usage.prompt_tokens + usage.prompt_tokens,
            completion_tokens=self.usage.completion_tokens + usage.completion_tokens,
            cost_usd=sum(costs) if costs else None,
        )


def _content(judge: JudgeTemplate) -> str:
    """What decides a single ballot: not which others are taken, nor how they are counted."""
    return judge.model_copy(update={"orders": ("original-first",), "members": (), "rule": "all"}).model_dump_json()
