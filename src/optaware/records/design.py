"""How a rewriter's prompt template came about: what was asked for, the phases, and the card of the result."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from optaware.records._base import Record
from optaware.records.chat import ChatMessage, ChatModelRef, Usage
from optaware.records.result import Interval
from optaware.records.study import GateSpec

__all__ = ["DesignLimits", "DesignSpec", "Exchange", "TemplateCard", "TemplatePhase", "TemplateTrial"]

Count = Annotated[int, Field(ge=1)]


class DesignLimits(Record):
    """Bounds on what is asked, so that a build ends and its cost is known before.

    Attributes:
        rows: Rows that a template is tried on; all of them must be valid (the paper: 20).
        rounds: Trials of phase 3 at most.
        attempts: Replies asked for until one can be used.
        context_chars: Characters of the paper in one request; longer papers are read part by part.
        parts: Parts of the paper that are read at most.
        points: Points on the optimizer that phase 2 keeps at most; phase 4 may add half as many.
        rules: Rules for the wording that phase 2 asks for.
        items: Figures, tables and algorithms that phase 1 describes at most.
        reply_tokens: Tokens of one reply about the template.
        shots: Examples in the few-shot module at most.
        shot_chars: Characters of all examples together at most.
    """

    rows: Count = 20
    rounds: Count = 5
    attempts: Count = 3
    context_chars: Annotated[int, Field(ge=500)] = 6000
    parts: Count = 24
    points: Count = 8
    rules: Count = 5
    items: Annotated[int, Field(ge=0)] = 4
    reply_tokens: Annotated[int, Field(ge=32)] = 320
    shots: Count = 20
    shot_chars: Annotated[int, Field(ge=200)] = 12_000


class DesignSpec(Record):
    """What decides a built template: paper, task, rows, chat models, bounds. Its fingerprint names the build.

    Attributes:
        task: Name of a built-in task, or path of a task file.
        task_sha256: Content hash of the task.
        optimizer: What the optimizer is called in the prompts.
        paper: Path of the paper.
        paper_sha256: Content hash of the paper, or of the template that a transfer starts from.
        rows_sha256: Content hash of the training rows.
        prompts_sha256: Content hash of the prompts that ask for the template.
        writer: Chat model that writes and mends the template.
        rewriter: Chat model that rewrites the rows of the trials.
        judge: Chat model that judges them.
        gate: Bounds of the automatic checks.
        inspect: Who looks at the rewrites: `judge` (checks and judge; a person's labels overrule them where there are
            any) or `person` (the build waits until a person has labelled what passes the checks).
        examples: What the rewriter is shown before there are examples of its own (phases 3 and 5): `none`, as in the
            paper, or a column of the task's few-shot module (`oat`, `paraphrase`), for models that give rows back
            unchanged when they see no example.
        limits: Bounds.
        transferred_from: Content hash of the template that a transfer starts from.
        judge_file: A calibrated judge; None: the packaged one.
        judge_sha256: Content hash of it.
        max_calls: Requests of all kinds, cached ones included; a build that reaches it stops and can be gone on with.
    """

    kind: Literal["build", "transfer"] = "build"
    task: str
    task_sha256: str
    optimizer: str
    paper: str
    paper_sha256: str
    rows_sha256: str
    prompts_sha256: str
    writer: ChatModelRef
    rewriter: ChatModelRef
    judge: ChatModelRef
    gate: GateSpec = GateSpec()
    inspect: Literal["judge", "person"] = "judge"
    examples: str = "none"
    limits: DesignLimits = DesignLimits()
    transferred_from: str | None = None
    judge_file: str | None = None
    judge_sha256: str | None = None
    max_calls: Count = 1500


class Exchange(Record):
    """One request about the template and its reply, and what was made of it."""

    key: str
    messages: tuple[ChatMessage, ...]
    reply: str | None
    error: str | None = None
    request_id: str
    cached: bool = False
    usage: Usage = Usage()
    seconds: float = 0.0
    kept: tuple[str, ...] = ()
    """Lines that were taken from the reply."""
    dropped: tuple[str, ...] = ()
    """Lines that were not, each with the reason."""


class TemplateTrial(Record):
    """Rows rewritten with one template, and how many of the rewrites are valid.

    Attributes:
        template_id: The template.
        folder: The trial's corpus folder, relative to the build.
        rows: How many rows.
        valid: Those whose rewrite passed checks, judge and person.
        reasons: Why the others are not: count by reason.
        calls: Requests, cached ones included.
        overruled: Rows where a person's label says other than the judge.
        fault: The reason whose example was fed back; None when nothing was.
        rule: What was added against it.
    """

    template_id: str
    folder: str
    rows: int
    valid: int
    reasons: dict[str, int] = Field(default_factory=dict)
    calls: int = 0
    overruled: int = 0
    fault: str | None = None
    rule: str | None = None


class TemplatePhase(Record):
    """One finished phase: the template before and after, what it took, what is worth knowing.

    Attributes:
        phase: 1 to 5; 0 for the adaptation of a transfer.
        template_id: Content hash of the template that the phase left.
        parent_id: That of the template before; None for phase 1.
        calls: Requests, cached ones included.
        cached: Replies that the cache gave.
        usage: Tokens and money of the replies, cached ones included.
        seconds: Wall time of the call that finished the phase.
        added: Lines that the template has and the one before had not.
        lost: Lines that the one before had and this one has not.
        trials: Trials on rows.
        reached: Whether the phase's goal was reached (phase 3: all rows valid; phase 5: enough valid examples).
        notes: What a reader should know.
    """

    phase: int
    name: str
    template_id: str
    parent_id: str | None
    calls: int = 0
    cached: int = 0
    usage: Usage = Usage()
    seconds: float = 0.0
    added: int = 0
    lost: int = 0
    trials: tuple[TemplateTrial, ...] = ()
    reached: bool = True
    notes: tuple[str, ...] = ()


class TemplateCard(Record):
    """The result of a build or a transfer."""

    version: Literal[1] = 1
    design_id: str
    task: str
    optimizer: str
    paper: str
    template_id: str
    template_ids: dict[str, str]
    """Content hash of the template after each phase."""
    phases: tuple[TemplatePhase, ...]
    shots: int
    """Examples in the few-shot module."""
    final: TemplateTrial | None
    """The finished template on rows that none of its examples are taken from: those of phase 3."""
    valid: Interval | None
    """Share of valid rows of `final`, with a 95 % interval."""
    writer: str
    rewriter: str
    judge: str
    calls: int
    cached: int
    usage: Usage
    seconds: float
    source: str | None = None
    """Where a transfer started from."""
    unreached: tuple[str, ...] = ()
    """Goals that were not reached, in words; empty when all were."""
