"""The five phases, each from one document to the next."""

from __future__ import annotations

import re
from collections import Counter as Tally
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from optaware._io import dump_yaml, write_text
from optaware.data._fewshot import FewShotModule, RewriteShot, find_module
from optaware.data._prompts import _plain, _wording
from optaware.data.design._asker import Asker
from optaware.data.design._document import (
    ALWAYS,
    DATA,
    FAULTS,
    NEEDS,
    OPTIMIZER,
    PAPER,
    Document,
    Section,
    covered,
    escape,
    plain,
)
from optaware.data.design._material import around, cut, paper_items, parts, plain_text
from optaware.data.design._replies import (
    Lines,
    about_learning,
    about_wording,
    general,
    grounded,
    read_lines,
    read_sentences,
    says_none,
    slotted,
)
from optaware.data.design._trial import Row, Trials, fault_words
from optaware.errors import ModelError
from optaware.records import DesignSpec, Example, PaperCard, TemplateTrial
from optaware.tasks import Task

__all__ = ["COLUMN", "Ground", "Outcome", "data_lines", "phase_1", "phase_2", "phase_3", "phase_4", "phase_5", "save"]

COLUMN = "built"
"""Under this name the few-shot module holds the rewrites of a built template."""

GOAL = (
    "The goal: a model trained with {optimizer} on the reworded texts has to do better than one trained on the "
    "original texts with the same settings."
)


QUESTIONS = (
    "How does {optimizer} get a gradient from the loss on a training text?",
    "What makes the gradient of {optimizer} noisy, biased or weak?",
    "What makes training with {optimizer} slow or unstable, or what makes it work well?",
)
"""What phase 2 asks of each part: one thing at a time, because small models answer several by repeating them."""
AGAIN = (
    "What is the most important thing that this part says on how {optimizer} learns?",
    "Which property of training texts, or of the loss on them, does {optimizer} depend on?",
)
"""What phase 4 asks of each part."""


@dataclass
class Outcome:
    """What a phase left beside its document."""

    trials: list[TemplateTrial] = field(default_factory=list)
    reached: bool = True
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ground:
    """What all phases stand on.

    Attributes:
        spec: The build.
        task: The task.
        rows: Training rows, in order.
        trials: Tries templates.
        asker: Asks about the template.
        folder: Folder of the phase.
    """

    spec: DesignSpec
    task: Task
    rows: Sequence[Example]
    trials: Trials
    asker: Asker
    folder: Path

    @property
    def module(self) -> FewShotModule:
        """The task's own few-shot module: wording, and the judge's examples."""
        return find_module(self.task)

    @property
    def first_module(self) -> FewShotModule:
        """What templates are tried with before phase 5 has made examples: none, unless the spec names some."""
        wanted = self.spec.examples
        shots = [shot for shot in self.module.rewriter if wanted in shot.rewrites]
        only = [shot.model_copy(update={"rewrites": {wanted: shot.rewrites[wanted]}}) for shot in shots]
        return self.module.model_copy(update={"rewriter": tuple(only)})

    @property
    def wording(self) -> dict[str, str]:
        """Names of the task's module, as templates see them."""
        return _wording(self.task, self.module)

    def readable(self, lines: Sequence[str]) -> list[str]:
        """Lines of the template as the writer is shown them."""
        return [plain(line, self.wording) for line in lines]


def save(folder: Path, document: Document, task: Task, module: FewShotModule) -> Path:
    """Write a template and the few-shot module that belongs to it."""
    data = module.model_copy(update={"span": task.span}).model_dump(mode="json", exclude_none=True)
    write_text(folder / "fewshot" / f"{task.name}.yaml", dump_yaml(data))
    write_text(folder / "template.jinja", document.text)
    return folder / "template.jinja"


def data_lines(task: Task) -> list[str]:
    """The schema: what an instance is, the fields beside the rewritten one, and the latter's role."""
    lines = [escape(task.description)]
    for name, spec in task.fields.items():
        # The span is named in the opening: small models gave a line about it back in place of a rewrite.
        if name in (task.label_field, "answerKey", task.span):
            continue
        told = spec.description.strip() or name.replace("_", " ")
        told = told if told.endswith(".") else told + "."
        lines.append(f"- {escape(name)}: {escape(told)}")
    return [*lines, escape(task.role)]


def phase_1(ground: Ground, card: PaperCard) -> tuple[Document, Outcome]:
    """Task description; abstract and introduction, word for word; figures, tables, algorithm in words; slots."""
    spec, outcome, limit = ground.spec, Outcome(), ground.spec.limits.context_chars
    title = " ".join(card.title.text.split()) if card.title else Path(card.source).stem
    context = [f"The training text is for {escape(spec.optimizer)}. From its paper, {escape(title)}:"]
    for name, item in (("Abstract", card.abstract), ("Introduction", card.introduction)):
        if item is None:
            outcome.notes.append(f"the paper has no {name.lower()} that could be told")
            continue
        text, shortened = cut(plain_text(item.text), limit)
        if shortened:
            outcome.notes.append(f"{name.lower()} cut after {len(text)} of {len(item.text)} characters")
        context += [f"{name}:", *map(escape, text.split("\n"))]
    if card.abstract is None and card.introduction is None:
        text, _ = cut(plain_text(card.text), limit)
        context += ["Beginning:", *map(escape, text.split("\n"))]
    for item in paper_items(card, spec.limits.items):
        context.append(_described(ground, card, item, outcome))
    document = Document(
        opening=("You rewrite the {{ noun }} of a training example. {{ about }}",),
        sections=(
            Section(DATA, tuple(data_lines(ground.task))),
            Section(PAPER, tuple(context)),
            Section(
                ALWAYS,
                (
                    "- Keep every fact: who did what to whom, names, numbers, dates, negation, tense, degree of "
                    "certainty.",
                    "- Stay neutral: {{ neutral }}",
                    "- Change the wording: never give the original back word for word.",
                    "- Keep about the same length as the original.",
                    "- Reply with the rewritten {{ noun }} only.",
                ),
            ),
        ),
        meta=(("shots", "none"), ("phase", "1")),
    )
    return document, outcome


def _described(ground: Ground, card: PaperCard, item: object, outcome: Outcome) -> str:
    from optaware.records import PaperItem

    assert isinstance(item, PaperItem)
    label = item.label or item.kind.capitalize()
    caption, beside = plain_text(item.text).replace("\n", " "), around(card, item)
    found = ground.asker.lines(
        f"describe {label}",
        "describe",
        lambda reply, _: read_sentences(reply, f"{caption} {beside} {label}"),
        optimizer=ground.spec.optimizer,
        kind=item.kind,
        text=cut(caption, 1500)[0],
        around=beside,
    )
    if not found.kept:
        outcome.notes.append(f"{label}: no usable description, so its caption stands as it is")
        return escape(cut(caption, 600)[0])
    return f"{escape(label)}: {escape(found.kept[0].removeprefix(label).lstrip(' :'))}"


def _facts(
    ground: Ground, card: PaperCard, document: Document, most: int, *, again: bool, outcome: Outcome
) -> list[str]:
    """What the whole paper says of the optimizer and the template does not: asked part by part."""
    limits, found = ground.spec.limits, list[str]()
    texts = parts(card, limits.context_chars)
    if len(texts) > limits.parts:
        outcome.notes.append(f"{limits.parts} of the paper's {len(texts)} parts were read")
    texts = texts[: limits.parts]
    for number, text in enumerate(texts, start=1):
        if len(found) >= most:
            outcome.notes.append(
                f"{most} points were found before part {number} of {len(texts)}; the rest was not read"
            )
            break
        # All parts get a chance: a share of what is left, and never more than three points of one part.
        share = min(3, max(1, -(-(most - len(found)) // (len(texts) - number + 1))))
        known = [*document.points(OPTIMIZER), *found]

        def read(
            reply: str,
            prompt: str,
            new: Sequence[str],
            text: str = text,
            known: Sequence[str] = known,
            share: int = share,
        ) -> Lines:
            if says_none(reply):
                return Lines((), ())
            told = prompt.replace(text, " ")
            left = min(1, share - len(new))
            return read_lines(
                reply,
                known=[*known, *new],
                told=told,
                limit=left,
                checks=[about_learning, grounded(f"{ground.spec.optimizer} {text}")],
            )

        points = ground.asker.questions(
            f"{'key points' if again else 'gaps'} {number}/{len(texts)}",
            "facts",
            [question.format(optimizer=ground.spec.optimizer) for question in (AGAIN if again else QUESTIONS)],
            read,
            optimizer=ground.spec.optimizer,
            number=number,
            count=len(texts),
            text=text,
            known=ground.readable(known),
        )
        found += [escape(_named(point, ground.spec.optimizer)) for point in points]
    return found


def _named(point: str, optimizer: str) -> str:
    """The point with the optimizer's name: out of its reply it has lost what "it" and "this" stood for."""
    point = re.sub(r"^(?:It|This (?:method|optimizer|approach))(?= )", lambda _: optimizer, point)
    return re.sub(r"^(?:This|The) (gradient|estimate)(?= )", lambda found: f"The {found[1]} of {optimizer}", point)


def _rules(ground: Ground, document: Document, known: Sequence[str], n: int, key: str) -> list[str]:
    have = document.points(NEEDS)
    noun = ground.wording["noun"]

    def read(reply: str, prompt: str) -> Lines:
        told = prompt.split("Write ", 1)[-1]
        return read_lines(reply, known=ground.readable(have), told=told, limit=n, checks=[about_wording])

    said = ground.asker.lines(
        key,
        "rules",
        read,
        optimizer=ground.spec.optimizer,
        known=ground.readable(known),
        about=ground.wording["about"],
        have=ground.readable(have),
        noun=noun,
        n=n,
    )
    return [slotted(rule, noun) for rule in said.kept]


def phase_2(ground: Ground, card: PaperCard, before: Document) -> tuple[Document, Outcome]:
    """The full paper is compared with the template; what is missing is added, the goal restated, rules drawn from it.

    The paper's own words make room for points, so that the prompt of each row stays short.
    """
    outcome, limits = Outcome(), ground.spec.limits
    document = before.with_lines(PAPER, ())
    points = _facts(ground, card, document, limits.points, again=False, outcome=outcome)
    if not points:
        raise ModelError.of(
            "design-unusable",
            "phase 2",
            f"no reply held a point on {ground.spec.optimizer} that stands in the paper",
            "Ask another model with --llm, or give --optimizer the name that the paper uses; see exchanges.jsonl.",
            str(ground.folder),
        )
    document = document.adding(OPTIMIZER, points)
    rules = _rules(ground, document, points, limits.rules, "rules")
    if not rules:
        raise ModelError.of(
            "design-unusable",
            "phase 2",
            "no reply held a rule for the wording",
            "Ask another model with --llm; the replies and what is wrong with them stand in exchanges.jsonl.",
            str(ground.folder),
        )
    goal = escape(GOAL.format(optimizer=ground.spec.optimizer))
    document = document.with_lines(NEEDS, [goal, *(f"- {rule}" for rule in rules)])
    return document.with_meta(phase=2), outcome


def phase_3(ground: Ground, before: Document) -> tuple[Document, Outcome]:
    """Rewrite rows, feed a representative fault back, until all rows are valid; the best template stays."""
    limits, outcome = ground.spec.limits, Outcome()
    rows = ground.rows[: limits.rows]
    if len(rows) < limits.rows:
        outcome.notes.append(f"there are {len(rows)} rows, not {limits.rows}")
    module = ground.first_module
    document = before.with_meta(phase=3, shots=ground.spec.examples)
    best: tuple[int, Document] | None = None
    told: list[tuple[str, str]] = []
    for number in range(1, limits.rounds + 1):
        folder = ground.folder / f"round-{number}"
        path = save(folder, document, ground.task, module)
        trial, found = ground.trials.run(path, document.id, rows, folder, f"round {number}")
        ground.asker.say(f"round {number}: {trial.valid} of {trial.rows} valid")
        if best is None or trial.valid > best[0]:
            best = (trial.valid, document)
        fault = _representative(found, told)
        if trial.valid == trial.rows or fault is None or number == limits.rounds:
            outcome.trials.append(trial)
            break
        rule = _against(ground, document, fault, found, number)
        told.append((fault.reason or "", fault.example.id))
        outcome.trials.append(trial.model_copy(update={"fault": fault.reason, "rule": rule}))
        if rule is not None:
            document = document.adding(FAULTS, [rule])
    assert best is not None
    outcome.reached = best[0] == len(rows)
    if not outcome.reached:
        outcome.notes.append(f"after {len(outcome.trials)} rounds the best template had {best[0]} of {len(rows)} valid")
    if best[1].id != document.id:
        outcome.notes.append("rules that came after the best round are left out: they made no more rows valid")
    return best[1], outcome


def _representative(rows: Sequence[Row], told: Sequence[tuple[str, str]]) -> Row | None:
    """An example of the most frequent fault; kinds that were fed back before come last, and so do their examples."""
    faulty = [row for row in rows if row.reason is not None and not row.reason.startswith("call:")]
    if not faulty:
        return None
    count, before = Tally(row.reason for row in faulty), Tally(reason for reason, _ in told)
    seen = set(told)
    return min(
        faulty,
        key=lambda row: (
            before[row.reason or ""],
            -count[row.reason],
            (row.reason, row.example.id) in seen,
            row.rewritten is None,
        ),
    )


def _against(ground: Ground, document: Document, fault: Row, rows: Sequence[Row], number: int) -> str | None:
    noun = ground.wording["noun"]
    rules = document.points(NEEDS, FAULTS, ALWAYS)
    words, given = fault_words(fault, ground.wording["keeps"], noun)

    def read(reply: str, prompt: str) -> Lines:
        told = prompt.split("Write one more rule", 1)[-1]
        checks = [about_wording, general(f"{fault.original} {fault.rewritten or ''}")]
        return read_lines(reply, known=ground.readable(rules), told=told, limit=1, checks=checks)

    said = ground.asker.lines(
        f"fault {number}: {fault.reason}",
        "fault",
        read,
        noun=noun,
        about=ground.wording["about"],
        rules=ground.readable(rules),
        count=sum(row.reason == fault.reason for row in rows),
        rows=len(rows),
        original=cut(fault.original, 1500)[0],
        rewritten=cut(fault.rewritten or "(none)", 1500)[0],
        given=list(given.items()),
        fault=words,
    )
    return slotted(said.kept[0], noun) if said.kept else None


def phase_4(ground: Ground, card: PaperCard, before: Document, phase_2_left: Document) -> tuple[Document, Outcome]:
    """Key points are extracted again; what phase 3 lost is restored, what is missing added. Nothing is taken away."""
    outcome, limits = Outcome(), ground.spec.limits
    document = before
    for title in (OPTIMIZER, NEEDS):
        own = document.points()
        missing = [point for point in phase_2_left.points(title) if not covered(point, own)]
        if missing:
            outcome.notes.append(f"{len(missing)} lines of {title!r} that phase 3 lost were restored")
            document = document.adding(title, missing)
    more = _facts(ground, card, document, max(1, limits.points // 2), again=True, outcome=outcome)
    document = document.adding(OPTIMIZER, more) if more else document
    if more:
        rules = _rules(ground, document, more, max(1, limits.rules // 2), "more rules")
        document = document.adding(NEEDS, rules) if rules else document
    if lost := document.lost(before):
        raise AssertionError(f"phase 4 lost {lost}")
    return document.with_meta(phase=4), outcome


def phase_5(ground: Ground, before: Document) -> tuple[Document, FewShotModule, Outcome]:
    """Rows that phase 3 did not see are rewritten; the valid rewrites become the few-shot module.

    They are rewritten without examples, or with those that the spec names, none of which stays.
    """
    limits, outcome = ground.spec.limits, Outcome()
    bare = ground.module.model_copy(update={"rewriter": ()})
    before = before.with_meta(shots=ground.spec.examples)
    path = save(ground.folder / "before", before, ground.task, ground.first_module)
    fresh = list(ground.rows[limits.rows :])
    if len(fresh) < limits.shots:
        outcome.notes.append(f"only {len(fresh)} rows are left beside those of phase 3, which serve as well")
        fresh += list(ground.rows[: limits.rows])
    shots: list[RewriteShot] = []
    at = 0
    # Twice as many rows as examples are looked at, at most: a template that needs more is not good enough to show.
    while len(shots) < limits.shots and at < min(len(fresh), 2 * limits.shots):
        rows = fresh[at : at + limits.shots - len(shots)]
        at += len(rows)
        trial, found = ground.trials.run(path, before.id, rows, ground.folder, f"examples {len(shots)}/{limits.shots}")
        outcome.trials.append(trial)
        shots += [_shot(ground.task, row, bare) for row in found if row.reason is None]
    if len(shots) < limits.shots:
        outcome.reached = False
        outcome.notes.append(f"{len(shots)} valid rewrites among {at} rows, not {limits.shots}")
    kept = _within(shots, limits.shot_chars)
    if len(kept) < len(shots):
        outcome.notes.append(f"{len(kept)} of {len(shots)} examples fit {limits.shot_chars} characters")
    module = bare.model_copy(update={"rewriter": tuple(kept)})
    document = before.with_meta(shots=COLUMN if kept else "none", phase=5)
    return document, module, outcome


def _shot(task: Task, row: Row, module: FewShotModule) -> RewriteShot:
    from optaware.data._prompts import _shown

    context = task.context(row.example)
    given = {heading: _shown(context, name) for heading, name in module.rewriter_given.items()}
    return RewriteShot(given=given, text=_plain(row.original), rewrites={COLUMN: (row.rewritten or "").strip()})


def _within(shots: Sequence[RewriteShot], limit: int) -> list[RewriteShot]:
    kept, used = list[RewriteShot](), 0
    for shot in shots:
        used += len(shot.text) + len(shot.rewrites[COLUMN])
        if used > limit and kept:
            break
        kept.append(shot)
    return kept
