from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from optaware._io import canonical_json, read_jsonl, text_sha256
from optaware.errors import InputError, ProblemList
from optaware.llm import ChatModel, load_template
from optaware.plan._entry import entry_of_row
from optaware.plan._fence import fenced_line
from optaware.plan._match import Matcher, MatchVerdict
from optaware.plan._notes import Notes, quote
from optaware.plan._render import entry_json
from optaware.plan._words import normal_text
from optaware.records import AblationEntry, ChatMessage, ChatReply, ChatRequest, Interval, Record

__all__ = ["ChatMatcher", "JudgeQuality", "JudgeVote", "JudgedPair", "LabelledPair", "judge_quality", "read_labels"]

_TEMPLATE = Path(__file__).parent / "templates" / "judge.jinja"
_SAID: dict[str, Literal["same", "different"]] = {"same": "same", "not the same": "different"}
_TOKENS = 20
Pair = tuple[AblationEntry, AblationEntry]


class JudgeVote(Record):
    """One answer of one judge.

    Attributes:
        judge: The chat model's identity.
        swapped: Whether the reference's ablation was shown first.
        said: Its answer; None when it could not be read, which is no vote.
        failure: The reply, or the error, that could not be read.
    """

    judge: str
    swapped: bool
    said: Literal["same", "different"] | None
    failure: str | None = None


class JudgedPair(Record):
    """A planned ablation beside one of the reference, and how the judges voted."""

    planned: str
    reference: str
    votes: tuple[JudgeVote, ...]

    @property
    def failures(self) -> int:
        """Replies that could not be read."""
        return sum(vote.said is None for vote in self.votes)

    @property
    def verdict(self) -> MatchVerdict:
        """By majority of the votes that could be read; a tie, or none, is unclear and so no match."""
        same = sum(vote.said == "same" for vote in self.votes)
        other = sum(vote.said == "different" for vote in self.votes)
        told = f"{same} of {same + other} votes say the same"
        if self.failures:
            told += f", {self.failures} replies could not be read"
        return MatchVerdict(matched=same > other, clear=same != other, why=told)


class ChatMatcher:
    """Matches by the votes of one or several chat models.

    Each judge votes `votes` times. Which side is shown first is drawn from `seed` and the pair, and turned round at
    every further vote, so that a leaning to the first side cancels out over pairs. An answer must be "same" or
    "not the same" and nothing else; any other reply is a failure that is kept with its text.

    Args:
        judges: Chat models, at least one.
        votes: Votes of each judge on each pair.
        seed: Of the order of sides.

    Raises:
        InputError: No judge, or votes below 1.
    """

    def __init__(self, judges: Sequence[ChatModel], *, votes: int = 1, seed: int = 0) -> None:
        if not judges or votes < 1:
            given = f"{len(judges)} judges, {votes} votes each"
            raise InputError.of("count-below-one", given, "a match needs at least one vote", "Give 1 or more.")
        self._judges, self._votes, self._seed = tuple(judges), votes, seed
        self._template = load_template(_TEMPLATE)
        self._judged: dict[str, JudgedPair] = {}

    @property
    def identity(self) -> str:
        """Template, judges, votes and seed: scores with another identity cannot be compared."""
        judges = "+".join(judge.identity for judge in self._judges)
        return f"chat/1:{self._template.id[:12]}:{judges}:votes={self._votes}:seed={self._seed}"

    def prepare(self, pairs: Iterable[Pair]) -> None:
        """Ask about all pairs at once, so that an endpoint can work on many."""
        wanted = {_key(*pair): pair for pair in pairs}
        wanted = {key: pair for key, pair in wanted.items() if key not in self._judged}
        votes: dict[str, list[JudgeVote]] = {key: [] for key in wanted}
        for judge in self._judges:
            asked = {f"{key}:{number}": (key, number) for key in wanted for number in range(self._votes)}
            requests = (self._request(name, wanted[key], number) for name, (key, number) in asked.items())
            replies = {reply.key: reply for reply in judge.complete(requests)}
            for name, (key, number) in asked.items():
                votes[key].append(self._vote(judge, key, number, replies.get(name)))
        for key, (planned, reference) in wanted.items():
            self._judged[key] = JudgedPair(planned=planned.name, reference=reference.name, votes=tuple(votes[key]))

    def judged(self, planned: AblationEntry, reference: AblationEntry) -> JudgedPair:
        """How the judges voted on a pair; they are asked when they were not yet."""
        if _key(planned, reference) not in self._judged:
            self.prepare([(planned, reference)])
        return self._judged[_key(planned, reference)]

    def match(self, planned: AblationEntry, reference: AblationEntry) -> MatchVerdict:
        """The majority's verdict on a pair."""
        return self.judged(planned, reference).verdict

    def swapped(self, key: str, number: int) -> bool:
        """Whether the reference is shown first in a vote."""
        drawn = int(text_sha256(canonical_json([self._seed, key]))[:8], 16) % 2 == 1
        return drawn != (number % 2 == 1)

    def _request(self, name: str, pair: Pair, number: int) -> ChatRequest:
        first, second = reversed(pair) if self.swapped(_key(*pair), number) else pair
        prompt = self._template.render(
            first=_shown(first), second=_shown(second), first_values=_values(first), second_values=_values(second)
        )
        return ChatRequest(
            key=name, messages=(ChatMessage(role="user", content=prompt),), max_tokens=_TOKENS, seed=self._seed + number
        )

    def _vote(self, judge: ChatModel, key: str, number: int, reply: ChatReply | None) -> JudgeVote:
        told: dict[str, Any] = {"judge": judge.identity, "swapped": self.swapped(key, number)}
        if reply is None or reply.text is None:
            return JudgeVote(**told, said=None, failure="no reply" if reply is None else quote(reply.error or ""))
        said = _SAID.get(normal_text(reply.text.strip().strip("`*\"'.! \n")))
        return JudgeVote(**told, said=said, failure=None if said else quote(reply.text))


def _key(planned: AblationEntry, reference: AblationEntry) -> str:
    return text_sha256(f"{entry_json(planned)}\n{entry_json(reference)}")


def _shown(entry: AblationEntry) -> dict[str, str]:
    shown = {"ablated_part": entry.ablated_part, "name": entry.name, "action": entry.action}
    return {name: fenced_line(text) for name, text in shown.items()}


def _values(entry: AblationEntry) -> str:
    if isinstance(entry.replacement, dict):
        return fenced_line(", ".join(f"{key}={value.text}" for key, value in entry.replacement.items()))
    return fenced_line(", ".join(value.text for value in entry.values))


class LabelledPair(Record):
    """Two ablations and whether a person takes them for the same."""

    planned: AblationEntry
    reference: AblationEntry
    same: bool


class JudgeQuality(Record):
    """How well a matcher agrees with labelled pairs; "same" is the positive class, unclear counts as "not the same".

    Attributes:
        matcher: Its identity.
        pairs: How many pairs were labelled, and how many of them as the same (`positives`).
        true_positives: Both say the same.
        false_positives: Only the matcher does.
        false_negatives: Only the label does.
        unclear: Pairs that the matcher could not tell.
        failures: Replies of chat models that could not be read.
        precision: `TP / (TP + FP)`; None when it never said the same.
        recall: `TP / (TP + FN)`; None when no pair is labelled the same.
        f1: Their harmonic mean; None when either is missing.
        accuracy: Share of agreeing pairs, with its Wilson interval.
    """

    matcher: str
    pairs: int
    positives: int
    true_positives: int
    false_positives: int
    false_negatives: int
    unclear: int
    failures: int = 0
    precision: float | None
    recall: float | None
    f1: float | None
    accuracy: Interval


class _LabelRow(Record):
    planned: dict[str, Any]
    reference: dict[str, Any]
    same: bool = Field(strict=True)


def read_labels(path: Path) -> list[LabelledPair]:
    """Read labelled pairs: JSONL rows with `planned` and `reference` (entries of a plan) and `same` (true or false).

    Raises:
        InputError: Missing file, or rows that are wrong; all at once.
    """
    from optaware.records import parse_record

    problems, pairs = ProblemList(str(path)), []
    for number, row in enumerate(read_jsonl(path), start=1):
        with problems.collecting():
            read = parse_record(_LabelRow, row, f"{path}: row {number}")
            entries = {}
            for side in ("planned", "reference"):
                notes = Notes()
                entries[side] = entry_of_row(getattr(read, side), notes)
                for found in notes.diagnostics:
                    if found.level == "error":
                        place = f"{path}: row {number}, {side}"
                        problems.add("label-unusable", found.given, found.why, found.next, place)
            planned, reference = entries["planned"], entries["reference"]
            if planned is not None and reference is not None:
                pairs.append(LabelledPair(planned=planned, reference=reference, same=read.same))
    problems.raise_if_any()
    if not pairs:
        raise InputError.of("labels-empty", path.name, "it holds no pair", "Label some pairs.", str(path))
    return pairs


def judge_quality(pairs: Sequence[LabelledPair], matcher: Matcher) -> JudgeQuality:
    """Compare a matcher, chat models or words, with labels."""
    from optaware.stats import wilson  # brings scipy, which reading a plan does not need

    if isinstance(matcher, ChatMatcher):
        matcher.prepare((pair.planned, pair.reference) for pair in pairs)
    verdicts = [matcher.match(pair.planned, pair.reference) for pair in pairs]
    said = [verdict.matched and verdict.clear for verdict in verdicts]
    tp = sum(one and pair.same for one, pair in zip(said, pairs, strict=True))
    fp, positives = sum(said) - tp, sum(pair.same for pair in pairs)
    precision = tp / (tp + fp) if tp + fp else None
    recall = tp / positives if positives else None
    f1 = None
    if precision is not None and recall is not None:
        f1 = 2 * precision * recall / (precision + recall) if tp else 0.0
    failures = 0
    if isinstance(matcher, ChatMatcher):
        failures = sum(matcher.judged(pair.planned, pair.reference).failures for pair in pairs)
    return JudgeQuality(
        matcher=matcher.identity,
        pairs=len(pairs),
        positives=positives,
        true_positives=tp,
        false_positives=fp,
        false_negatives=positives - tp,
        unclear=sum(not verdict.clear for verdict in verdicts),
        failures=failures,
        precision=precision,
        recall=recall,
        f1=f1,
        accuracy=wilson(sum(one == pair.same for one, pair in zip(said, pairs, strict=True)), len(pairs)),
    )
