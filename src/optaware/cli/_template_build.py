"""`optaware data template build` and `transfer`: a rewriter's template made from a paper, or from another template."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from optaware.cli._options import AsJson, BaseUrl, DataDir, StoreDir, print_json, print_table, store_at

if TYPE_CHECKING:
    from optaware.data.design import Designer
    from optaware.records import DesignSpec, TemplateCard

__all__ = ["build", "transfer"]

Task = Annotated[str, Parameter(help="Built-in task or task file.")]
Writer = Annotated[
    str, Parameter("--llm", help="Chat model: hub name, path or asset; a .jsonl file: scripted replies.")
]


@Parameter(name="*")
@dataclass(frozen=True)
class Making:
    """The options that `build` and `transfer` share: who writes and judges, on which rows, at what cost, and where."""

    base_url: BaseUrl = None
    rewriter: Annotated[str | None, Parameter(help="Chat model that rewrites rows. Default: --llm.")] = None
    judge: Annotated[str | None, Parameter(help="Chat model that judges rewrites. Default: --llm.")] = None
    judge_file: Annotated[
        Path | None, Parameter(help="A judge that `data calibrate` made, instead of the packaged one.")
    ] = None
    out: Annotated[
        Path | None,
        Parameter(name=("-o", "--out"), help="Folder of the build. Default: STORE/templates/OPTIMIZER-TASK."),
    ] = None
    inspect: Annotated[
        Literal["judge", "person"],
        Parameter(help="`person`: stop after each trial until its rewrites are labelled with `data review`."),
    ] = "judge"
    examples: Annotated[
        str,
        Parameter(
            help="Rewrites of the task's few-shot module shown until phase 5 has examples of its own: `none` (the "
            "paper), or `oat` or `paraphrase`, for models that give rows back unchanged without."
        ),
    ] = "none"
    rows: Annotated[int, Parameter(help="Rows that a template is tried on; all must be valid.")] = 20
    shots: Annotated[int, Parameter(help="Examples of the few-shot module.")] = 20
    shot_chars: Annotated[int, Parameter(help="Characters of all examples together at most.")] = 12_000
    max_calls: Annotated[int, Parameter(help="Requests at most; the same command with more goes on.")] = 1500
    budget_usd: Annotated[float | None, Parameter(help="Stop at this cost (needs prices).")] = None
    budget_tokens: Annotated[int | None, Parameter(help="Stop after so many tokens, for each chat model.")] = None
    temperature: Annotated[float, Parameter(help="Of the sampling.")] = 0.0
    seed: Annotated[int, Parameter(help="Of the sampling.")] = 0
    protocol: Annotated[
        Literal["oat", "mezo", "all"],
        Parameter("--protocol", help="Whose training rows are used; `all`: the whole split."),
    ] = "oat"
    dry_run: Annotated[
        bool, Parameter(negative=(), help="Say how many requests it takes at most, and ask nothing.")
    ] = False
    store: StoreDir = None
    data: DataDir = None
    json: AsJson = False


_MAKING = Making()


def build(
    *,
    paper: Annotated[Path, Parameter(help="The optimizer's paper: PDF, Markdown, LaTeX file or folder, or text.")],
    task: Task,
    llm: Writer,
    optimizer: Annotated[
        str | None, Parameter(help="What the paper calls the optimizer. Default: the title up to a colon.")
    ] = None,
    until: Annotated[int, Parameter(help="The last phase to do now, 1 to 5.")] = 5,
    rounds: Annotated[int, Parameter(help="Trials of phase 3 at most.")] = 5,
    points: Annotated[int, Parameter(help="Points on the optimizer that phase 2 keeps at most.")] = 8,
    rules: Annotated[int, Parameter(help="Rules for the wording that phase 2 asks for.")] = 5,
    items: Annotated[int, Parameter(help="Figures, tables and algorithms described at most.")] = 4,
    parts: Annotated[int, Parameter(help="Parts of the paper that are read at most.")] = 24,
    attempts: Annotated[int, Parameter(help="Replies asked for until one can be used.")] = 3,
    context_chars: Annotated[int, Parameter(help="Characters of the paper in one request.")] = 6000,
    reply_tokens: Annotated[int, Parameter(help="Tokens of one reply about the template.")] = 320,
    making: Making = _MAKING,
) -> int:
    """Build a rewriter's prompt template from an optimizer's paper, in five phases.

    Every phase leaves its template, what was asked and replied, and a diff, in a folder of its own. The same command
    goes on where it stopped and pays for nothing twice. Exit code 1 when a goal was not reached (20 of 20 valid rows,
    20 examples); the template is there all the same.
    """
    from optaware.errors import InputError
    from optaware.paper import read_paper

    if not 1 <= until <= 5:
        raise InputError.of("design-phase", f"--until {until}", "there are phases 1 to 5", "Give one of them.")
    card = read_paper(paper)
    title = " ".join(card.title.text.split()) if card.title else paper.stem
    work = _Work(
        making,
        task,
        llm,
        optimizer or title.split(":")[0].strip(),
        rounds=rounds,
        points=points,
        rules=rules,
        items=items,
        parts=parts,
        attempts=attempts,
        context_chars=context_chars,
        reply_tokens=reply_tokens,
    )
    return work.run(work.spec(str(paper), card.sha256), lambda designer: designer.build(card, until=until))


def transfer(
    *,
    from_: Annotated[
        str, Parameter("--from", help="Task that a template was built for, the build's folder, or a Jinja file.")
    ],
    to: Task,
    llm: Writer,
    making: Making = _MAKING,
) -> int:
    """Carry a built template over to another task: new schema description, few-shot module removed and built anew.

    What is said of the optimizer and the rules for the wording stay; rules that speak of the other task's fields are
    left out and listed. The same command goes on where it stopped.
    """
    from optaware.data.design import Foreign, find_template, foreign_words, parse_template
    from optaware.tasks import get_task

    path = find_template(from_, (store_at(making.store).root / "templates",))
    document = parse_template(path)
    optimizer, source = _origin(path)
    work = _Work(making, to, llm, optimizer)
    foreign = foreign_words(get_task(source), work.task) if source else Foreign()
    spec = work.spec(str(path), document.id, transferred_from=document.id)
    return work.run(spec, lambda designer: designer.transfer(document, foreign))


def _origin(path: Path) -> tuple[str, str | None]:
    """Optimizer and task of the build that a template belongs to."""
    from optaware._io import read_json

    for folder in (path.parent, path.parent.parent):
        if (folder / "card.json").is_file():
            card = read_json(folder / "card.json")
            return str(card["optimizer"]), str(card["task"])
        if (folder / "spec.json").is_file():
            spec = read_json(folder / "spec.json")
            return str(spec.get("optimizer", path.stem)), spec.get("task")
    return path.stem, None


class _Work:
    """What build and transfer have in common: task, rows, chat models, folder, and how it is told."""

    def __init__(self, given: Making, task: str, llm: str, optimizer: str, **limits: int) -> None:
        from optaware.cli._options import chat_ref, data_dir
        from optaware.records import DesignLimits, Protocol, parse_record
        from optaware.tasks import get_task, load_rows, load_splits

        self.given, self.optimizer = given, optimizer
        self.task_name, self.task = task, get_task(task)
        limits |= {"rows": given.rows, "shots": given.shots, "shot_chars": given.shot_chars}
        self.limits = parse_record(DesignLimits, limits, "options")
        settings = {name: getattr(given, name) for name in ("budget_usd", "budget_tokens", "temperature", "seed")}
        self.writer = chat_ref(llm, given.base_url, **settings)
        self.rewriter, self.judge = (
            self.writer if other is None else chat_ref(other, given.base_url, **settings)
            for other in (given.rewriter, given.judge)
        )
        self.store = store_at(given.store)
        if given.protocol == "all" or self.task.rows is None:
            loaded = load_rows(self.task, "train", data_dir=data_dir(given.data))
            self.rows, self.source = loaded.examples, loaded.source
        else:
            splits = load_splits(self.task, Protocol(name=given.protocol), data_dir=data_dir(given.data))
            self.rows, self.source = splits.train, splits.source

    def spec(self, paper: str, sha256: str, transferred_from: str | None = None) -> DesignSpec:
        """The spec of the build."""
        from optaware.data.design import make_design_spec

        return make_design_spec(
            task=self.task,
            task_name=self.task_name,
            rows=self.rows,
            optimizer=self.optimizer,
            paper=paper,
            paper_sha256=sha256,
            writer=self.writer,
            rewriter=self.rewriter,
            judge=self.judge,
            inspect=self.given.inspect,
            examples=self.given.examples,
            limits=self.limits,
            transferred_from=transferred_from,
            judge_file=self.given.judge_file,
            max_calls=self.given.max_calls,
        )

    @property
    def folder(self) -> Path:
        """Folder of the build."""
        slug = "".join(c if c.isalnum() else "-" for c in self.optimizer.lower()).strip("-")[:40] or "optimizer"
        return self.given.out or self.store.root / "templates" / f"{slug}-{self.task.name}"

    def designer(self, spec: DesignSpec, should_stop: Callable[[], bool]) -> Designer:
        """Opens the chat models; a model that plays two parts is opened once."""
        from optaware.data import read_judge
        from optaware.data.design import Designer
        from optaware.data.judge import JudgePanel
        from optaware.llm import open_chat

        chats: dict[str, Any] = {}
        for ref in (self.writer, self.rewriter, self.judge):
            if (key := ref.model_dump_json()) not in chats:
                chats[key] = open_chat(ref, cache=self.store.chat_cache())
        judge = chats[self.judge.model_dump_json()]
        voting = read_judge(self.given.judge_file)
        if voting is not None and voting.votes:
            members = [open_chat(ref, cache=self.store.chat_cache()) for ref in voting.members]
            judge = JudgePanel((judge, *members), voting.orders, voting.rule)
        return Designer(
            spec,
            self.task,
            self.rows,
            writer=chats[self.writer.model_dump_json()],
            rewriter=chats[self.rewriter.model_dump_json()],
            judge=judge,
            folder=self.folder,
            source=self.source,
            on_step=_Teller(should_stop),
        )

    def run(self, spec: DesignSpec, made: Callable[[Designer], TemplateCard | None]) -> int:
        """Make the template and print what came out, or with --dry-run what would be asked."""
        from optaware.data.design import calls_at_most
        from optaware.study import stop_requests

        if self.given.dry_run:
            print(f"{self.folder}: at most {calls_at_most(spec)} requests, {len(self.rows)} rows to draw on.")
            return 0
        with stop_requests() as should_stop:
            card = made(self.designer(spec, should_stop))
        if card is None:
            print(f"{self.folder}: the phases asked for are done; the same command without --until goes on.")
            return 0
        if self.given.json:
            print_json(card.to_json())
        else:
            _print_card(card, self.folder)
        return 1 if card.unreached else 0


class _Teller:
    """Prints steps to standard error, progress within a step every ten seconds; a stop request ends it in order."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self._should_stop = should_stop
        self._last = ""
        self._at = 0.0

    def __call__(self, line: str) -> None:
        from optaware.errors import StoppedBySignal

        if self._should_stop():
            raise StoppedBySignal.of("stopped", line, "a stop was asked for", "The same command goes on from here.")
        what, _, count = line.rpartition(" ")
        now = time.monotonic()
        counted = "/" in count and count.replace("/", "").isdigit()
        done = counted and count.split("/")[0] == count.split("/")[1]
        if not counted or what != self._last or done or now - self._at >= 10:
            print(line, file=sys.stderr, flush=True)
            self._at = now
        self._last = what


def _print_card(card: TemplateCard, folder: Path) -> None:
    rows = []
    for phase in card.phases:
        trials = ", ".join(f"{trial.valid}/{trial.rows}" for trial in phase.trials)
        rows.append(
            [phase.phase, phase.name, phase.template_id[:12], f"+{phase.added} -{phase.lost}", trials, phase.calls]
        )
    print_table(["phase", "what", "template", "lines", "valid", "calls"], rows)
    if card.final is not None and card.valid is not None:
        low, high = 100 * card.valid.low, 100 * card.valid.high
        print(
            f"finished template: {card.final.valid} of {card.final.rows} rows valid "
            f"(95 % interval {low:.0f} to {high:.0f} %), {card.shots} examples"
        )
    tokens = card.usage.prompt_tokens + card.usage.completion_tokens
    print(f"{card.calls} requests, {card.cached} of them cached, {tokens} tokens, {card.seconds:.0f} s")
    for text in card.unreached:
        print(f"not reached: {text}")
    print(folder / "template.jinja")
