"""Building a template: the phases in order, each finished on disk before the next; the same call resumes."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from optaware._io import canonical_json, lock, read_json, text_sha256, write_json, write_text
from optaware.data._corpus import rows_sha256
from optaware.data._fewshot import FewShotModule, find_module
from optaware.data._judge_file import read_judge
from optaware.data.design._asker import PROMPTS, Asker, Counter, OnStep
from optaware.data.design._document import Document
from optaware.data.design._phases import (
    AGAIN,
    QUESTIONS,
    Ground,
    Outcome,
    data_lines,
    phase_1,
    phase_2,
    phase_3,
    phase_4,
    phase_5,
    save,
)
from optaware.data.design._transfer import Foreign, adapted
from optaware.data.design._trial import Trials
from optaware.errors import InputError
from optaware.llm import ChatModel
from optaware.records import (
    ChatModelRef,
    DataSource,
    DesignLimits,
    DesignSpec,
    Example,
    GateSpec,
    PaperCard,
    TemplateCard,
    TemplatePhase,
    TemplateTrial,
    hashed_fields,
    parse_record,
    short_id,
)
from optaware.stats import wilson
from optaware.tasks import Task

__all__ = ["NAMES", "Designer", "calls_at_most", "make_design_spec"]

NAMES = {
    0: "adapt",
    1: "initial template",
    2: "gaps filled",
    3: "errors corrected",
    4: "paper restored",
    5: "few-shot module",
}
Step = Callable[[Ground, Document | None], tuple[Document, FewShotModule | None, Outcome]]


def make_design_spec(
    *,
    task: Task,
    task_name: str,
    rows: Sequence[Example],
    optimizer: str,
    paper: str,
    paper_sha256: str,
    writer: ChatModelRef,
    rewriter: ChatModelRef | None = None,
    judge: ChatModelRef | None = None,
    gate: GateSpec | None = None,
    inspect: str = "judge",
    examples: str = "none",
    limits: DesignLimits | None = None,
    transferred_from: str | None = None,
    judge_file: Path | None = None,
    max_calls: int = 1500,
) -> DesignSpec:
    """The spec of a build, or with `transferred_from` of a transfer: all that decides the template.

    Args:
        task: The task.
        task_name: Its name, or the path of its file.
        rows: The training rows.
        optimizer: What the optimizer is called.
        paper: Path of the paper; for a transfer, of the template.
        paper_sha256: Content hash of it.
        writer: Chat model that writes the template.
        rewriter: Chat model that rewrites; None: the writer.
        judge: Chat model that judges; None: the writer.
        gate: Bounds of the automatic checks.
        inspect: `judge` or `person`.
        examples: Column of the task's few-shot module that the rewriter is shown until phase 5, or `none`.
        limits: Bounds.
        transferred_from: Content hash of the template that a transfer starts from.
        judge_file: A calibrated judge (`optaware data calibrate`); None: the packaged one.
        max_calls: Requests of all kinds at most.

    Raises:
        InputError: There are no rows, or the task's few-shot module has no such examples.
    """
    if not rows:
        raise InputError.of("rows-missing", task_name, "there are no training rows", "Check --protocol and the data.")
    known = sorted({column for shot in find_module(task).rewriter for column in shot.rewrites})
    if examples != "none" and examples not in known:
        raise InputError.of(
            "template-shots",
            f"--examples {examples}",
            "the task's few-shot module has no such rewrites",
            f"Use one of: {', '.join((*known, 'none'))}.",
        )
    voting = read_judge(judge_file)
    prompts = {path.name: path.read_text("utf-8") for path in sorted(PROMPTS.glob("*.jinja"))}
    return DesignSpec.model_validate(
        {
            "kind": "transfer" if transferred_from else "build",
            "task": task_name,
            "task_sha256": task.sha256,
            "optimizer": optimizer,
            "paper": paper,
            "paper_sha256": paper_sha256,
            "rows_sha256": rows_sha256(rows),
            "prompts_sha256": text_sha256(canonical_json(prompts)),
            "writer": writer,
            "rewriter": rewriter or writer,
            "judge": judge or writer,
            "gate": gate or GateSpec(),
            "inspect": inspect,
            "examples": examples,
            "limits": limits or DesignLimits(),
            "transferred_from": transferred_from,
            "judge_file": None if judge_file is None else str(judge_file),
            "judge_sha256": None if voting is None else text_sha256(canonical_json(voting.to_json())),
            "max_calls": max_calls,
        }
    )


def calls_at_most(spec: DesignSpec) -> int:
    """How many requests a build can make at most, its own bound `max_calls` included."""
    own = spec.limits
    shots = 3 * 2 * own.shots + 3 * own.rows
    if spec.kind == "transfer":
        return min(shots, spec.max_calls)
    writer = (own.items + 2 + own.rounds) * own.attempts + (len(QUESTIONS) + len(AGAIN)) * own.parts
    return min(writer + 3 * own.rows * own.rounds + shots, spec.max_calls)


class Designer:
    """Builds or transfers one template in a folder.

    Each phase leaves `phase-N/` with `template.jinja`, its few-shot module below `fewshot/`, `diff.txt` to the template
    before, `exchanges.jsonl` (what was asked and replied, what was taken and what not) and, written last, `phase.json`.
    A phase whose `phase.json` names the template before it as it is now is not made again; so after an edit of a
    finished phase's template by hand, the later phases are made anew from it, and nothing else is.

    Args:
        spec: What to build.
        task: The task.
        rows: The training rows that the spec was made for.
        writer: Writes and mends the template.
        rewriter: Rewrites the rows of trials; None: the writer.
        judge: Judges them; None: the writer.
        folder: Folder of the build.
        source: Where the rows came from.
        on_step: Told what goes on; what it raises stops the build in good order.

    Raises:
        InputError: The rows are not those of the spec, or the folder holds another build.
    """

    def __init__(
        self,
        spec: DesignSpec,
        task: Task,
        rows: Sequence[Example],
        *,
        writer: ChatModel,
        rewriter: ChatModel | None = None,
        judge: ChatModel | None = None,
        folder: Path,
        source: DataSource,
        on_step: OnStep | None = None,
    ) -> None:
        if rows_sha256(rows) != spec.rows_sha256:
            raise InputError.of(
                "rows-changed",
                f"{len(rows)} training rows of {spec.task}",
                "they are not those that the spec was made for",
                "Use the same data and protocol, or another --out.",
            )
        self.spec, self.task, self.rows, self.folder = spec, task, rows, folder
        self._writer, self._on_step = writer, on_step
        self._counter = Counter(spec.max_calls)
        self._trials = Trials(spec, task, rewriter or writer, judge or writer, folder, source, self._counter, on_step)

    def build(self, card: PaperCard, *, until: int = 5) -> TemplateCard | None:
        """The five phases.

        Args:
            card: The paper.
            until: The last phase to do now.

        Returns:
            The card; None when later phases are left.

        Raises:
            ModelError: No reply of phase 2 could be used.
            StoppedBySignal: A person is to label rewrites first.
            BudgetExhausted, EndpointError: From the chat models; the same call goes on.
        """

        def second(ground: Ground, before: Document | None) -> tuple[Document, None, Outcome]:
            document, outcome = phase_2(ground, card, _given(before))
            return document, None, outcome

        def fourth(ground: Ground, before: Document | None) -> tuple[Document, None, Outcome]:
            path = self.folder / "phase-2" / "template.jinja"
            left = Document.parse(path.read_text("utf-8"), str(path))
            document, outcome = phase_4(ground, card, _given(before), left)
            return document, None, outcome

        def first(ground: Ground, before: Document | None) -> tuple[Document, None, Outcome]:
            document, outcome = phase_1(ground, card)
            return document, None, outcome

        def third(ground: Ground, before: Document | None) -> tuple[Document, None, Outcome]:
            document, outcome = phase_3(ground, _given(before))
            return document, None, outcome

        return self._run({1: first, 2: second, 3: third, 4: fourth, 5: _fifth}, until)

    def transfer(self, template: Document, from_words: Foreign) -> TemplateCard | None:
        """Another task's template for this task: new schema, few-shot module removed and built anew.

        Args:
            template: The template to carry over.
            from_words: Words of the other task that mean nothing here; rules that use them are left out.
        """

        def zero(ground: Ground, before: Document | None) -> tuple[Document, None, Outcome]:
            document, notes = adapted(template, data_lines(self.task), from_words)
            return document, None, Outcome(notes=notes)

        return self._run({0: zero, 5: _fifth}, 5)

    def _run(self, steps: dict[int, Step], until: int) -> TemplateCard | None:
        with lock(self.folder / ".design.lock"):
            self._claim_folder()
            done: list[TemplatePhase] = []
            before: Document | None = None
            for number, step in steps.items():
                if number > until:
                    return None
                phase, before = self._phase(number, step, before)
                done.append(phase)
            assert before is not None
            return self._finish(done, before)

    def _claim_folder(self) -> None:
        path = self.folder / "spec.json"
        if path.is_file():
            other = hashed_fields(parse_record(DesignSpec, read_json(path), str(path)))
            own = hashed_fields(self.spec)
            if changed := [name for name in own.keys() | other.keys() if own.get(name) != other.get(name)]:
                raise InputError.of(
                    "design-folder-taken",
                    str(self.folder),
                    f"it holds the build of another spec (differs in {', '.join(sorted(changed))})",
                    "Choose another folder with --out, or give the same options.",
                )
        write_json(path, self.spec.to_json())

    def _phase(self, number: int, step: Step, before: Document | None) -> tuple[TemplatePhase, Document]:
        folder = self.folder / f"phase-{number}"
        record, template = folder / "phase.json", folder / "template.jinja"
        parent = None if before is None else before.id
        if record.is_file() and template.is_file():
            phase = parse_record(TemplatePhase, read_json(record), str(record))
            if phase.parent_id == parent:
                document = Document.parse(template.read_text("utf-8"), str(template))
                self._counter.add(phase.calls, phase.cached, phase.usage)
                return self._kept(phase, document, record), document
            record.unlink()
        if self._on_step is not None:
            self._on_step(f"phase {number}: {NAMES[number]}")
        began, earlier = time.monotonic(), (self._counter.calls, self._counter.cached, self._counter.usage)
        asker = Asker(
            self._writer,
            self.spec.writer,
            self._counter,
            folder / "exchanges.jsonl",
            self.spec.limits.attempts,
            self.spec.limits.reply_tokens,
            self._on_step,
        )
        try:
            ground = Ground(self.spec, self.task, self.rows, self._trials, asker, folder)
            document, module, outcome = step(ground, before)
        finally:
            asker.close()
        save(folder, document, self.task, module or ground.first_module)
        write_text(folder / "diff.txt", diff_text(before, document, number))
        calls, cached, usage = earlier
        phase = TemplatePhase(
            phase=number,
            name=NAMES[number],
            template_id=document.id,
            parent_id=parent,
            calls=self._counter.calls - calls,
            cached=self._counter.cached - cached,
            usage=self._counter.usage.model_copy(
                update={
                    "prompt_tokens": self._counter.usage.prompt_tokens - usage.prompt_tokens,
                    "completion_tokens": self._counter.usage.completion_tokens - usage.completion_tokens,
                    "cost_usd": _minus(self._counter.usage.cost_usd, usage.cost_usd),
                }
            ),
            seconds=round(time.monotonic() - began, 1),
            added=0 if before is None else len(before.lost(document)),
            lost=0 if before is None else len(document.lost(before)),
            trials=tuple(outcome.trials),
            reached=outcome.reached,
            notes=tuple(outcome.notes),
        )
        write_json(record, phase.to_json())
        return phase, document

    @staticmethod
    def _kept(phase: TemplatePhase, document: Document, record: Path) -> TemplatePhase:
        """The phase as it stands; a template that a person edited since then is noted."""
        if document.id == phase.template_id:
            return phase
        note = "the template was edited by hand afterwards"
        notes = phase.notes if note in phase.notes else (*phase.notes, note)
        edited = phase.model_copy(update={"template_id": document.id, "notes": notes})
        write_json(record, edited.to_json())
        return edited

    def _finish(self, phases: Sequence[TemplatePhase], document: Document) -> TemplateCard:
        done = self.folder / "DONE"
        module = find_module(self.task, self.folder / "phase-5" / "template.jinja")
        path = self.folder / "card.json"
        if done.is_file() and path.is_file():
            card = parse_record(TemplateCard, read_json(path), str(path))
            if card.template_id == document.id:
                return card
        done.unlink(missing_ok=True)
        save(self.folder, document, self.task, module)
        final = self._final(document)
        unreached = [f"phase {p.phase}: {'; '.join(p.notes) or 'not reached'}" for p in phases if not p.reached]
        card = TemplateCard(
            design_id=short_id(self.spec),
            task=self.spec.task,
            optimizer=self.spec.optimizer,
            paper=Path(self.spec.paper).name,
            template_id=document.id,
            template_ids={str(phase.phase): phase.template_id for phase in phases},
            phases=tuple(phases),
            shots=len(module.rewriter),
            final=final,
            valid=wilson(final.valid, final.rows) if final.rows else None,
            writer=_name(self.spec.writer),
            rewriter=_name(self.spec.rewriter),
            judge=_name(self.spec.judge),
            calls=self._counter.calls,
            cached=self._counter.cached,
            usage=self._counter.usage,
            seconds=round(sum(phase.seconds for phase in phases), 1),
            source=self.spec.paper if self.spec.kind == "transfer" else None,
            unreached=tuple(unreached),
        )
        write_json(path, card.to_json())
        write_json(done, {"template": document.id})
        return card

    def _final(self, document: Document) -> TemplateTrial:
        rows = self.rows[: self.spec.limits.rows]
        path = self.folder / "template.jinja"
        return self._trials.run(path, document.id, rows, self.folder / "final", "finished template")[0]


def _fifth(ground: Ground, before: Document | None) -> tuple[Document, FewShotModule, Outcome]:
    return phase_5(ground, _given(before))


def _given(before: Document | None) -> Document:
    assert before is not None
    return before


def _name(ref: ChatModelRef) -> str:
    return f"{ref.provider}:{ref.model}"


def _minus(now: float | None, before: float | None) -> float | None:
    return None if now is None else now - (before or 0.0)


def diff_text(before: Document | None, after: Document, number: int) -> str:
    """A unified diff of two templates; for the first one, against nothing."""
    old = before.text.splitlines() if before is not None else []
    name = "before" if before is None else f"{before.id[:12]}"
    lines = difflib.unified_diff(old, after.text.splitlines(), name, f"{after.id[:12]} (phase {number})", lineterm="")
    return "\n".join(lines) + "\n"
