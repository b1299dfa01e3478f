from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from optaware.errors import InputError, ModelError
from optaware.llm import ChatModel, load_template
from optaware.plan._bind import draft_of
from optaware.plan._fence import fenced
from optaware.plan._match import LexicalMatcher
from optaware.plan._notes import quote
from optaware.plan._parse import parse_plan
from optaware.plan._propose_evidence import Evidence, with_evidence, without_evidence
from optaware.plan._propose_material import chunks, overview, readable
from optaware.plan._propose_mend import main_metric, mend_entry, no_part
from optaware.plan._render import entry_json
from optaware.plan._surface import Surface
from optaware.records import (
    AblationEntry,
    ChatMessage,
    ChatRequest,
    PageFacts,
    PaperCard,
    PlanDocument,
    PlanItem,
    Record,
)

__all__ = ["Evidence", "Proposal", "ProposeLimits", "proposal_requests", "propose_plan"]

_TEMPLATES = Path(__file__).parent / "templates"
_MOST_OF_A_PART = 4
_MOST_RANKED = 40


class Proposal(Record):
    """A proposed plan and how it came about.

    Attributes:
        document: Trace and ranked entries; the evidence is listed at the end of the trace.
        evidence: What each entry rests on.
        existing: Ablations that the paper has already (with `missing`).
        dropped: Entries that were left out, each with the reason.
        mended: What was put right in the entries by rule.
        requests: Requests that were answered, cached ones included.
        attempts: Replies that the final plan took; more than one: the first could not be used as it was.
        faults: What was wrong with the replies, and what still is with the last one.
    """

    document: PlanDocument
    evidence: tuple[Evidence, ...]
    existing: tuple[AblationEntry, ...] = ()
    dropped: tuple[str, ...] = ()
    mended: tuple[str, ...] = ()
    requests: int
    attempts: int
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProposeLimits:
    """Bounds on what is asked.

    Attributes:
        context_chars: Characters of the paper in one request; longer papers are read part by part.
        max_tokens: Tokens of one reply.
        attempts: Replies asked for until one can be used.
        max_parts: Parts of a paper that are read at most.
    """

    context_chars: int = 24_000
    max_tokens: int = 1_500
    attempts: int = 3
    max_parts: int = 40


def proposal_requests(card: PaperCard, *, missing: bool, limits: ProposeLimits) -> int:
    """How many requests a proposal takes at most."""
    parts = _parts(card, limits)
    long = len(parts) > 1
    return len(parts) * (long + missing) + limits.attempts + long


def propose_plan(
    card: PaperCard,
    chat: ChatModel,
    *,
    k: int = 5,
    missing: bool = False,
    surface: Surface | None = None,
    limits: ProposeLimits | None = None,
    model: str | None = None,
    temperature: float = 0.0,
    seed: int = 0,
    say: Callable[[str], None] = lambda text: None,
) -> Proposal:
    """Propose a ranked ablation plan for a paper.

    A paper that fits one request is read whole. A longer one is read part by part (map: candidates of each part) and
    then ranked with its abstract and captions at hand. A reply that cannot be used is sent back with what is wrong, at
    most `limits.attempts` times; then the best of the replies counts. Where none of them holds an entry, the candidates
    of the parts are the plan: the model is asked for their order in numbers alone, and if it cannot tell that either,
    they stand in the order of the paper, those first whose quotes it has. Slips of form are put right by rule
    (`mended`); places in the paper that are no part of a method are dropped. Every quote is looked up in the paper.
    With a chat model that caches, asking again costs nothing, and a stopped proposal goes on where it stopped.

    Args:
        card: The paper.
        chat: Who plans.
        k: How many ablations at most; later ones are dropped by rank.
        missing: First find the ablations that the paper has, then propose others.
        surface: Components that proposals must name, so that they can be bound.
        limits: Bounds on what is asked.
        model: The planner's name in the page's title.
        temperature: Of the sampling.
        seed: Of the sampling.
        say: Told what is asked for next, and how far the reading is.

    Raises:
        InputError: k below 1.
        ModelError: No reply held a single usable entry, and no part of a long paper gave a candidate.
        BudgetExhausted, EndpointError: From the chat model.
    """
    if k < 1:
        raise InputError.of("count-below-one", f"k = {k}", "it counts ablations", "Give 1 or more.")
    proposer = _Proposer(card, chat, k, missing, surface, limits or ProposeLimits(), temperature, seed)
    proposer.say = say
    return proposer.run(model)


@dataclass
class _Reply:
    """One attempt: what was understood, what it rests on, what is wrong with it."""

    text: str
    document: PlanDocument | None
    quotes: dict[str, list[str]]
    faults: list[str]
    entries: tuple[AblationEntry, ...] = ()


class _Proposer:
    def __init__(
        self,
        card: PaperCard,
        chat: ChatModel,
        k: int,
        missing: bool,
        surface: Surface | None,
        limits: ProposeLimits,
        temperature: float,
        seed: int,
    ) -> None:
        self.card, self.chat, self.k, self.missing, self.surface = card, chat, k, missing, surface
        self.limits, self.temperature, self.seed = limits, temperature, seed
        self.requests = 0
        self.title = " ".join(card.title.text.split()) if card.title else Path(card.source).stem
        self.faults: list[str] = []
        self.mended: dict[str, None] = {}
        self.metric = main_metric(card)
        self.say: Callable[[str], None] = lambda text: None

    @property
    def _quoted_title(self) -> str:
        """The title as it stands between quotes."""
        return fenced(self.title).replace('"', "'")

    def run(self, model: str | None) -> Proposal:
        parts = _parts(self.card, self.limits)
        existing = self._read(parts, existing=True) if self.missing else ([], {})
        found = self._read(parts, existing=False) if len(parts) > 1 else ([], {})
        prompt = load_template(_TEMPLATES / "propose.jinja").render(
            title=self._quoted_title,
            material=fenced(parts[0] if len(parts) == 1 else overview(self.card, self.limits.context_chars // 2)),
            candidates=fenced(_lines(found[0], self.limits.context_chars // 2)),
            existing=fenced("".join(f"{entry_json(entry)}\n" for entry in existing[0])),
            parts=list(self.surface.parts.values()) if self.surface else [],
            missing=self.missing,
            k=self.k,
        )
        reply, attempts = self._ask_until_usable(prompt, existing[0])
        if reply is None or all(no_part(entry, self.card) for entry in reply.entries):
            reply = self._ranked(*found, reply, attempts)
        return self._proposal(reply, attempts, existing[0], {**found[1], **reply.quotes}, model)

    def _read(self, parts: Sequence[str], *, existing: bool) -> tuple[list[AblationEntry], dict[str, list[str]]]:
        """What each part of the paper yields; a part whose reply says nothing usable is named among the faults."""
        template = load_template(_TEMPLATES / "map.jinja")
        what = "existing" if existing else "candidates"
        requests = []
        for number, text in enumerate(parts, start=1):
            told = {"number": number, "count": len(parts), "text": fenced(text), "existing": existing}
            prompt = template.render(**told, title=self._quoted_title, most=_MOST_OF_A_PART)
            requests.append(self._request(f"{what} {number}", [_user(prompt)]))
        replies = {}
        self.say(f"{what}: asking about {len(requests)} parts of the paper")
        for reply in self.chat.complete(requests):
            replies[reply.key] = reply
            self.say(f"{what}: {len(replies)} of {len(requests)} parts are read")
        self.requests += len(requests)
        entries: list[AblationEntry] = []
        quotes: dict[str, list[str]] = {}
        for request in requests:
            answer = replies.get(request.key)
            if answer is None or answer.text is None:
                self.faults.append(f"{request.key}: {answer.error if answer else 'no reply'}")
                continue
            if answer.text.strip().strip(".`\"'").lower() in ("none", ""):
                continue
            read = self._understood(answer.text)
            self.faults.extend(f"{request.key}: {fault}" for fault in read.faults)
            known = {entry.name for entry in entries}
            for entry in read.entries:
                if not existing and (why := no_part(entry, self.card)):
                    self.faults.append(f"{request.key}: {entry.name}: {why}")
                elif entry.name not in known:
                    entries.append(entry)
            quotes |= read.quotes
        return entries, quotes

    def _ask_until_usable(self, prompt: str, existing: Sequence[AblationEntry]) -> tuple[_Reply | None, int]:
        turns = [_user(prompt)]
        best: _Reply | None = None
        attempt = 0
        for attempt in range(1, self.limits.attempts + 1):
            self.say(f"plan: asking, attempt {attempt} of {self.limits.attempts}")
            (answer,) = self.chat.complete([self._request(f"plan {attempt}", turns)])
            self.requests += 1
            if answer.text is None:
                self.faults.append(f"attempt {attempt}: {answer.error}")
                continue
            reply = self._understood(answer.text)
            reply.faults.extend(self._objections(reply.entries, existing))
            self.faults.extend(f"attempt {attempt}: {fault}" for fault in reply.faults)
            if best is None or _worth(reply) > _worth(best):
                best = reply
            if not reply.faults:
                break
            told = load_template(_TEMPLATES / "retry.jinja").render(faults=reply.faults[:20])
            turns = [turns[0], ChatMessage(role="assistant", content=answer.text), _user(told)]
        return best, attempt

    def _ranked(
        self,
        candidates: Sequence[AblationEntry],
        quotes: dict[str, list[str]],
        best: _Reply | None,
        attempts: int,
    ) -> _Reply:
        """A plan out of the candidates alone, when no reply held one: the model gives their order in numbers.

        Raises:
            ModelError: There are no candidates.
        """
        if not candidates:
            raise ModelError.of(
                "proposal-unusable",
                quote(best.text) if best else "no reply",
                f"in {attempts} attempts no ablation could be read: {'; '.join(self.faults[:3])}",
                "Ask another model, or give more --max-tokens; the replies are kept in the cache.",
                self.chat.identity,
            )
        listed = list(candidates[:_MOST_RANKED])
        prompt = load_template(_TEMPLATES / "rank.jinja").render(title=self._quoted_title, entries=listed, k=self.k)
        self.say("plan: no reply could be used; asking for the order of the candidates")
        (answer,) = self.chat.complete([self._request("order", [_user(prompt)])])
        self.requests += 1
        order = [int(number) - 1 for number in re.findall(r"\d+", answer.text or "")]
        order = [at for at in dict.fromkeys(order) if 0 <= at < len(listed)]
        if order:
            self.faults.append(
                "no reply held a plan: it is the candidates of the parts, in the order that the model gave"
            )
        else:
            why = "no reply held a plan or an order: it is the candidates of the parts, in the paper's order"
            self.faults.append(f"{why}, those first whose quotes it has")
            there = [any(self.card.find(text) for text in quotes.get(entry.name, ())) for entry in listed]
            order = sorted(range(len(listed)), key=lambda at: not there[at])
        chosen = tuple(listed[at] for at in order)
        return _Reply("", None, {}, [], chosen)

    def _understood(self, text: str) -> _Reply:
        bare, quotes = without_evidence(text)
        try:
            document = parse_plan(bare, "reply")
        except InputError as error:
            return _Reply(text, None, quotes, [f"{problem.given}: {problem.why}" for problem in error.problems])
        faults = [f"{found.given}: {found.why}" for found in document.all_diagnostics if found.level == "error"]
        entries = []
        for entry in document.plan.entries:
            mended, notes = mend_entry(entry, self.metric)
            entries.append(mended)
            self.mended |= dict.fromkeys(notes)
        return _Reply(text, document, quotes, faults, tuple(entries))

    def _objections(self, entries: Sequence[AblationEntry], existing: Sequence[AblationEntry]) -> list[str]:
        """What a planner should mend: names used twice, nothing to put in place, components that do not exist."""
        faults = []
        names = [entry.name for entry in entries]
        faults += [f"the name {name!r} is used twice" for name in dict.fromkeys(names) if names.count(name) > 1]
        matcher = LexicalMatcher()
        for entry in entries[: self.k]:
            if entry.action == "REPLACE" and not entry.values:
                faults.append(f"{entry.name}: REPLACE without a replacement")
            if why := no_part(entry, self.card):
                faults.append(f"{entry.name}: {why}")
            if any(matcher.match(entry, other).matched for other in existing):
                faults.append(f"{entry.name}: the paper has this ablation already")
            if self.surface is not None:
                draft = draft_of(entry, self.surface)
                lost = [reading for reading in draft.readings if reading.why_not is not None]
                if draft.part is None:
                    faults.append(f"{entry.name}: {draft.why}; name one of the listed components")
                faults += [f"{entry.name}: {reading.label}: {reading.why_not}" for reading in lost]
        return faults

    def _proposal(
        self,
        reply: _Reply,
        attempts: int,
        existing: Sequence[AblationEntry],
        quotes: dict[str, list[str]],
        model: str | None,
    ) -> Proposal:
        matcher = LexicalMatcher()
        kept: list[AblationEntry] = []
        dropped: list[str] = []
        for entry in reply.entries:
            if any(matcher.match(entry, other).matched for other in existing):
                dropped.append(f"{entry.name}: the paper has it already")
            elif why := no_part(entry, self.card):
                dropped.append(f"{entry.name}: {why}")
            elif entry.name in {other.name for other in kept}:
                dropped.append(f"{entry.name}: the name is used by an entry before it")
            elif len(kept) == self.k:
                dropped.append(f"{entry.name}: beyond the {self.k} that were asked for")
            else:
                kept.append(entry)
        evidence = tuple(
            Evidence(entry=entry.name, quote=text, place=self.card.find(text))
            for entry in kept
            for text in quotes.get(entry.name, ())
        )
        trace = (reply.document.trace if reply.document else None) or ""
        document = PlanDocument(
            read_from="reply",
            page=PageFacts(
                model=model, paper=_slug(self.title) if model else None, task="reviewer" if self.missing else "author"
            ),
            trace=with_evidence(trace, kept, evidence),
            items=tuple(PlanItem(entry=entry) for entry in kept),
        )
        return Proposal(
            document=document,
            evidence=evidence,
            existing=tuple(existing),
            dropped=tuple(dropped),
            mended=tuple(note for note in self.mended if any(note.startswith(f"{entry.name}: ") for entry in kept)),
            requests=self.requests,
            attempts=attempts,
            faults=tuple(self.faults),
        )

    def _request(self, key: str, turns: Sequence[ChatMessage]) -> ChatRequest:
        return ChatRequest(
            key=key,
            messages=tuple(turns),
            max_tokens=self.limits.max_tokens,
            temperature=self.temperature,
            seed=self.seed,
        )


def _parts(card: PaperCard, limits: ProposeLimits) -> list[str]:
    whole = readable(card)
    return [whole] if len(whole) <= limits.context_chars else chunks(card, limits.context_chars)[: limits.max_parts]


def _lines(entries: Sequence[AblationEntry], limit: int) -> str:
    """Entries as JSONL, as many whole lines as fit."""
    text = ""
    for entry in entries:
        line = f"{entry_json(entry)}\n"
        if len(text) + len(line) > limit:
            break
        text += line
    return text


def _user(text: str) -> ChatMessage:
    return ChatMessage(role="user", content=text)


def _worth(reply: _Reply) -> tuple[int, int]:
    return (min(1, len(reply.entries)), len(reply.entries) - len(reply.faults))


def _slug(title: str) -> str:
    return "_".join(re.findall(r"[^\W_]+", title))[:120] or "paper"
