"""Several ballots on one pair: two presentation orders, several models; and how they are counted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from optaware._io import canonical_json, text_sha256
from optaware.data._ledger import FINAL_CODES
from optaware.data._parse import parse_verdict
from optaware.errors import EndpointError
from optaware.llm import ChatModel, request_id
from optaware.records import (
    ChatMessage,
    ChatReply,
    ChatRequest,
    ParseFailure,
    PresentationOrder,
    SameOrNot,
    Usage,
    VoteRule,
)

__all__ = ["JudgePanel", "Said", "counted", "gather", "presented"]

_AT_ONCE = 256
"""Requests whose ballots are gathered together: enough to keep an endpoint busy, few enough to hold."""


def presented(messages: Sequence[ChatMessage], order: PresentationOrder) -> tuple[ChatMessage, ...]:
    """The judge's messages with the two texts in the given order, in the examples as in the row.

    Texts stand in JSON quotes, each on one line behind its heading, so the lines can be changed about exactly.
    """
    if order == "original-first":
        return tuple(messages)
    return tuple(
        turn.model_copy(update={"content": _swapped(turn.content)}) if turn.role == "user" else turn
        for turn in messages
    )


def _swapped(content: str) -> str:
    lines = content.split("\n")
    for at in range(len(lines) - 1):
        if lines[at].startswith("Original: ") and lines[at + 1].startswith("Rewrite: "):
            lines[at], lines[at + 1] = lines[at + 1], lines[at]
            return "\n".join(lines)
    return content  # a template of another form has no order to change


def counted(answers: Sequence[SameOrNot | None], rule: VoteRule) -> SameOrNot | None:
    """The verdict of several ballots; None, an abstention, when they give none.

    `all`: `not the same` when any ballot says so, `same` when all do. `majority`: what more than half of them say.
    """
    if not answers:
        return None
    same, other = (sum(answer == wanted for answer in answers) for wanted in ("same", "not the same"))
    if rule == "all":
        return "not the same" if other else "same" if same == len(answers) else None
    return "same" if 2 * same > len(answers) else "not the same" if 2 * other > len(answers) else None


@dataclass(frozen=True)
class Said:
    """One ballot on one request.

    Attributes:
        member: Which model, counted from 0.
        order: In which order it read the texts.
        reply: What came back.
    """

    member: int
    order: PresentationOrder
    reply: ChatReply

    @property
    def answer(self) -> SameOrNot | None:
        """The verdict; None when there is none to read."""
        found = None if self.reply.text is None else parse_verdict(self.reply.text)
        return None if found is None or isinstance(found, ParseFailure) else found

    @property
    def why(self) -> str:
        """Why there is no verdict; empty when there is one."""
        if self.reply.text is None:
            return f"{self.reply.error_code or 'error'}: {self.reply.error}"
        found = parse_verdict(self.reply.text)
        return found.why if isinstance(found, ParseFailure) else ""

    @property
    def may_pass(self) -> bool:
        """Whether the call failed in a way that a later one may not."""
        return self.reply.error is not None and (self.reply.error_code or "error") not in FINAL_CODES


def gather(
    models: Sequence[ChatModel], orders: Sequence[PresentationOrder], requests: Iterable[ChatRequest]
) -> Iterator[tuple[ChatRequest, list[Said]]]:
    """Every request with the ballots of all models in all orders, model by model, in the order of the requests.

    Raises:
        EndpointError: A model answered what was not asked, or left a request without an answer.
    """
    waiting = iter(requests)
    while chunk := list(islice(waiting, _AT_ONCE)):
        found: list[list[Said]] = [[] for _ in chunk]
        for member, model in enumerate(models):
            asked = {
                f"{place}:{order}:{request.key}": (place, order)
                for place, request in enumerate(chunk)
                for order in orders
            }
            sent = [
                chunk[place].model_copy(update={"key": key, "messages": presented(chunk[place].messages, order)})
                for key, (place, order) in asked.items()
            ]
            for reply in model.complete(iter(sent)):
                if reply.key not in asked:
                    raise EndpointError.of(
                        "reply-unasked", repr(reply.key)[:80], "no such request was made", "Report this chat model."
                    )
                place, order = asked.pop(reply.key)
                found[place].append(Said(member, order, reply))
            if asked:
                raise EndpointError.of(
                    "reply-missing", f"{len(asked)} requests", "the model gave no reply", "Run the same command again."
                )
        for request, said in zip(chunk, found, strict=True):
            yield request, sorted(said, key=lambda ballot: (ballot.member, orders.index(ballot.order)))


class JudgePanel:
    """Several ballots behind one chat model, so that whoever asks a judge can ask a panel.

    The reply's text is `same`, `not the same`, or `unsure` for an abstention; its usage is that of all ballots. When a
    ballot's call failed in a way that may pass, the reply is that error, and asking again costs only what is missing.

    Args:
        models: The members.
        orders: Presentation orders that each member is asked in.
        rule: How ballots are counted.
    """

    def __init__(self, models: Sequence[ChatModel], orders: Sequence[PresentationOrder], rule: VoteRule) -> None:
        self._models, self._orders, self._rule = tuple(models), tuple(orders), rule
        content = [[model.identity for model in models], list(orders), rule]
        self.identity = f"panel:{text_sha256(canonical_json(content))[:16]}"

    def complete(self, requests: Iterable[ChatRequest]) -> Iterator[ChatReply]:
        """See `ChatModel.complete`. What does not ask for a verdict (the judge's reasons) is the first member's."""
        others: list[ChatRequest] = []

        def verdicts() -> Iterator[ChatRequest]:
            for request in requests:
                if request.key.startswith(("meaning", "role")):
                    yield request
                else:
                    others.append(request)

        for request, said in gather(self._models, self._orders, verdicts()):
            yield self._reply(request, said)
        if others:
            yield from self._models[0].complete(iter(others))

    def _reply(self, request: ChatRequest, said: list[Said]) -> ChatReply:
        failed = next((ballot.reply for ballot in said if ballot.may_pass), None)
        verdict = counted([ballot.answer for ballot in said], self._rule)
        costs = [ballot.reply.usage.cost_usd for ballot in said]
        known = [cost for cost in costs if cost is not None]
        return ChatReply(
            key=request.key,
            request_id=request_id(self.identity, request),
            model=self.identity,
            text=None if failed is not None else verdict or "unsure",
            error=None if failed is None else failed.error,
            error_code=None if failed is None else failed.error_code,
            finish_reason=None if failed is not None else "stop",
            usage=Usage(
                prompt_tokens=sum(ballot.reply.usage.prompt_tokens for ballot in said),
                completion_tokens=sum(ballot.reply.usage.completion_tokens for ballot in said),
                cost_usd=sum(known) if known else None,
            ),
            latency_s=sum(ballot.reply.latency_s for ballot in said),
            cached=all(ballot.reply.cached for ballot in said),
        )
