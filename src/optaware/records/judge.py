"""Judges of rewrites: what they are told, how their ballots are counted, and how they were measured against people."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from optaware.records._base import Record
from optaware.records.chat import ChatModelRef, Usage
from optaware.records.result import Interval
from optaware.records.review import Fault, SameOrNot

__all__ = [
    "Ballot",
    "CalibrationRound",
    "JudgeCalibration",
    "JudgeMeasure",
    "JudgePrompts",
    "JudgeShot",
    "JudgeTemplate",
    "OrderedAttack",
    "PresentationOrder",
    "VoteRule",
]

PresentationOrder = Literal["original-first", "rewrite-first"]
"""Which of the two texts the judge reads first."""

VoteRule = Literal["all", "majority"]
"""`all`: `same` only when every ballot says so. `majority`: what more than half of the ballots say. What neither gives
is an abstention, which counts as a rejection."""

Given = dict[str, str | list[str]]


class JudgeShot(Record):
    """One pair and the right verdict on it: a few-shot example."""

    given: Given = Field(default_factory=dict)
    original: str
    rewrite: str
    answer: SameOrNot


class JudgePrompts(Record):
    """What a judge is told about one question beyond the template."""

    guidance: tuple[str, ...] = ()
    """Further rules, one sentence each."""
    shots: tuple[JudgeShot, ...] = ()
    """Further few-shot examples, after those of the task's few-shot module."""


class JudgeTemplate(Record):
    """One version of a task's judge; its id is the hash of its content.

    The packaged judge is the version without guidance, further examples, second order and further members.
    """

    version: Literal[1] = 1
    task: str
    base: Literal["plain", "guarded"] = "guarded"
    """`plain`: the packaged templates. `guarded`: the question is asked again after the texts."""
    meaning: JudgePrompts = JudgePrompts()
    role: JudgePrompts = JudgePrompts()
    orders: Annotated[tuple[PresentationOrder, ...], Field(min_length=1)] = ("original-first",)
    members: tuple[ChatModelRef, ...] = ()
    """Chat models that vote beside the first one, which whoever uses the judge names."""
    rule: VoteRule = "all"

    @property
    def votes(self) -> bool:
        """Whether there is more than one ballot on a pair, or one that the packaged judge would not give."""
        return bool(self.members) or self.orders != ("original-first",)

    @model_validator(mode="after")
    def _consistent(self) -> JudgeTemplate:
        if self.base == "plain" and (self.meaning.guidance or self.role.guidance):
            raise ValueError("the packaged templates (base: plain) have no place for guidance; use base: guarded")
        if len(set(self.orders)) < len(self.orders):
            raise ValueError("an order is given twice")
        return self


class Ballot(Record):
    """What one model said of one pair, on one question, in one order."""

    pair_id: str
    question: Fault
    order: PresentationOrder
    member: int
    """Which judge it was; 0 is the first."""
    answer: SameOrNot | None
    why: str = ""
    """Why there is no answer."""
    cached: bool = False
    usage: Usage = Usage()


class JudgeMeasure(Record):
    """A judge against people's labels. An abstention counts as a rejection, here as in the gate.

    `table[label][verdict]` counts pairs; verdicts are `same`, `not the same` and `abstained`.
    """

    name: str
    pairs: int
    right: int
    accuracy: Interval
    """Wilson score interval."""
    exact: Interval
    """Clopper–Pearson interval: never too narrow, a little wide."""
    table: dict[str, dict[str, int]]
    passed_wrongly: Interval | None
    """Share of the pairs that are not the same which the judge lets through; None when there is none."""
    rejected_wrongly: Interval | None
    """Share of the pairs that are the same which it rejects; None when there is none."""
    balanced: float | None
    """Mean of the shares judged rightly of either kind: 0.5 for a judge that always says one thing."""
    always_same: float
    """Accuracy of a judge that lets everything through: the share of pairs that are the same."""
    questions: dict[str, dict[str, dict[str, int]]]
    """The table of each question: `meaning` over all pairs where people said what differs, `role` over those of the
    same meaning."""
    calls_per_pair: float


class CalibrationRound(Record):
    """One round of refining, on the tuning pairs only."""

    number: int
    tried: dict[str, float]
    """Accuracy on the pairs that no example shows, by what was added."""
    before: float
    """Accuracy of the version before, on the same pairs."""
    pairs: int
    chosen: str | None
    """What was kept; None when nothing was better."""
    guidance: tuple[str, ...] = ()
    shots: tuple[str, ...] = ()
    """Ids of the pairs that became examples."""
    template_id: str


class OrderedAttack(Record):
    """Pairs that are not the same, with an order to the judge written into the rewrite."""

    order: str
    pairs: int
    passed: int
    """How many the judge lets through with the order in them."""
    passed_without: int
    """How many of the same pairs it lets through without it."""
    caught: int
    """How many the gate's own check rejects before any judge sees them."""


class JudgeCalibration(Record):
    """How a judge was refined on tuning pairs and then measured, once, on others."""

    version: Literal[1] = 1
    task: str
    judges: tuple[str, ...]
    pairs: int
    tuning: int
    measured: int
    left_out: tuple[str, ...]
    """Ids of the pairs on which labellers differ."""
    labellers: tuple[str, ...]
    tuning_share: float
    seed: int
    target: float
    start_id: str
    template_id: str
    template: JudgeTemplate
    rounds: tuple[CalibrationRound, ...]
    ended: str
    """Why refining ended."""
    start: JudgeMeasure
    final: JudgeMeasure
    options: tuple[JudgeMeasure, ...]
    """The same ballots of the final version, counted otherwise."""
    attacks: tuple[OrderedAttack, ...] = ()
    reached: bool
    """Whether the share of pairs judged rightly reaches the target: the paper's rule."""
    shown: Literal["above", "below", "open"]
    """What the interval says of the accuracy on further such pairs: above the target, below it, or not settled."""
    pairs_needed: int | None
    """How many pairs would settle it if the measured share held; None when no number would."""
    calls: int
    cached_calls: int
    prompt_tokens: int
    completion_tokens: int
    cost_usd: float | None
    wall_s: float
