from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import App, Parameter

from optaware.cli._options import AsJson, BaseUrl, DataDir, StoreDir, print_json, print_table, store_at

if TYPE_CHECKING:
    from optaware.records import TemplateCard

__all__ = ["app"]

app = App(name="template", help="Build a rewriter's prompt template from a paper; carry it over to other tasks.")

Writer = Annotated[
    str, Parameter("--llm", help="Chat model: hub name, path or asset; a .jsonl file: scripted replies.")
]
RewriterModel = Annotated[str | None, Parameter(help="Chat model that rewrites rows. Default: --llm.")]
JudgeFile = Annotated[Path | None, Parameter(help="A judge that `data calibrate` made, instead of the packaged one.")]
JudgeModel = Annotated[str | None, Parameter(help="Chat model that judges rewrites. Default: --llm.")]
Out = Annotated[
    Path | None, Parameter(name=("-o", "--out"), help="Folder of the build. Default: STORE/templates/OPTIMIZER-TASK.")
]
Inspect = Annotated[
    Literal["judge", "person"],
    Parameter(help="`person`: stop after each trial until its rewrites are labelled with `data review`."),
]
Examples = Annotated[
    str,
    Parameter(
        help="Rewrites of the task's few-shot module shown until phase 5 has examples of its own: `none` (the paper), "
        "or `oat` or `paraphrase`, for models that give rows back unchanged without."
    ),
]
RowsOf = Annotated[
    Literal["oat", "mezo", "all"], Parameter("--protocol", help="Whose training rows are used; `all`: the whole split.")
]
Rows = Annotated[int, Parameter(help="Rows that a template is tried on; all must be valid.")]
Shots = Annotated[int, Parameter(help="Examples of the few-shot module.")]
MaxCalls = Annotated[int, Parameter(help="Requests at most; the same command with more goes on.")]
BudgetUsd = Annotated[float | None, Parameter(help="Stop at this cost (needs prices).")]
BudgetTokens = Annotated[int | None, Parameter(help="Stop after so many tokens, for each chat model.")]
Temperature = Annotated[float, Parameter(help="Of the sampling.")]
Seed = Annotated[int, Parameter(help="Of the sampling.")]
DryRun = Annotated[bool, Parameter(negative=(), help="Say how many requests it takes at most, and ask nothing.")]


@app.command
def build(
    *,
    paper: Annotated[Path, Parameter(help="The optimizer's paper: PDF, Markdown, LaTeX file or folder, or text.")],
    task: Annotated[str, Parameter(help="Built-in task or task file.")],
    llm: Writer,
    base_url: BaseUrl = None,
    rewriter: RewriterModel = None,
    judge: JudgeModel = None,
    judge_file: JudgeFile = None,
    optimizer: Annotated[
        str | None, Parameter(help="What the paper calls the optimizer. Default: the title up to a colon.")
    ] = None,
    out: Out = None,
    inspect: Inspect = "judge",
    examples: Examples = "none",
    until: Annotated[int, Parameter(help="The last phase to do now, 1 to 5.")] = 5,
    rows: Rows = 20,
    rounds: Annotated[int, Parameter(help="Trials of phase 3 at most.")] = 5,
    shots: Shots = 20,
    points: Annotated[int, Parameter(help="Points on the optimizer that phase 2 keeps at most.")] = 8,
    rules: Annotated[int, Parameter(help="Rules for the wording that phase 2 asks for.")] = 5,
    items: Annotated[int, Parameter(help="Figures, tables and algorithms described at most.")] = 4,
    parts: Annotated[int, Parameter(help="Parts of the paper that are read at most.")] = 24,
    attempts: Annotated[int, Parameter(help="Replies asked for until one can be used.")] = 3,
    context_chars: Annotated[int, Parameter(help="Characters of the paper in one request.")] = 6000,
    reply_tokens: Annotated[int, Parameter(help="Tokens of one reply about the template.")] = 320,
    shot_chars: Annotated[int, Parameter(help="Characters of all examples together at most.")] = 12_000,
    max_calls: MaxCalls = 1500,
    budget_usd: BudgetUsd = None,
    budget_tokens: BudgetTokens = None,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    protocol: RowsOf = "oat",
    dry_run: DryRun = False,
    store: StoreDir = None,
    data: DataDir = None,
    json: AsJson = False,
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
    name = optimizer or title.split(":")[0].strip()
    limits = {
        "rows": rows,
        "rounds": rounds,
        "attempts": attempts,
        "context_chars": context_chars,
        "parts": parts,
        "points": points,
        "rules": rules,
        "items": items,
        "reply_tokens": reply_tokens,
        "shots": shots,
        "shot_chars": shot_chars,
    }
    work = _Work(
        task, llm, base_url, (rewriter, judge), judge_file, protocol, store, data, out, (inspect, examples), limits,
        max_calls,
        {"budget_usd": budget_usd, "budget_tokens": budget_tokens, "temperature": temperature, "seed": seed},
    )  # fmt: skip
    spec = work.spec(name, str(paper), card.sha256, None)
    if dry_run:
        return work.tell(spec, name)
    return work.finish(lambda designer: designer.build(card, until=until), spec, name, json)


@app.command
def transfer(
    *,
    from_: Annotated[
        str, Parameter("--from", help="Task that a template was built for, the build's folder, or a Jinja file.")
    ],
    to: Annotated[str, Parameter(help="Built-in task or task file.")],
    llm: Writer,
    base_url: BaseUrl = None,
    rewriter: RewriterModel = None,
    judge: JudgeModel = None,
    judge_file: JudgeFile = None,
    out: Out = None,
    inspect: Inspect = "judge",
    examples: Examples = "none",
    rows: Rows = 20,
    shots: Shots = 20,
    shot_chars: Annotated[int, Parameter(help="Characters of all examples together at most.")] = 12_000,
    max_calls: MaxCalls = 1500,
    budget_usd: BudgetUsd = None,
    budget_tokens: BudgetTokens = None,
    temperature: Temperature = 0.0,
    seed: Seed = 0,
    protocol: RowsOf = "oat",
    dry_run: DryRun = False,
    store: StoreDir = None,
    data: DataDir = None,
    json: AsJson = False,
) -> int:
    """Carry a built template over to another task: new schema description, few-shot module removed and built anew.

    What is said of the optimizer and the rules for the wording stay; rules that speak of the other task's fields are
    left out and listed. The same command goes on where it stopped.
    """
    from optaware.data.design import Foreign, find_template, foreign_words, parse_template
    from optaware.tasks import get_task

    path = find_template(from_, (store_at(store).root / "templates",))
    document = parse_template(path)
    name, source = _origin(path)
    limits = {"rows": rows, "shots": shots, "shot_chars": shot_chars}
    work = _Work(
        to, llm, base_url, (rewriter, judge), judge_file, protocol, store, data, out, (inspect, examples), limits,
        max_calls,
        {"budget_usd": budget_usd, "budget_tokens": budget_tokens, "temperature": temperature, "seed": seed},
    )  # fmt: skip
    spec = work.spec(name, str(path), document.id, document.id)
    if dry_run:
        return work.tell(spec, name)
    foreign = foreign_words(get_task(source), work.task) if source else Foreign()
    return work.finish(lambda designer: designer.transfer(document, foreign), spec, name, json)


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

    def __init__(
        self,
        task: str,
        llm: str,
        base_url: str | None,
        others: tuple[str | None, str | None],
        judge_file: Path | None,
        protocol: Literal["oat", "mezo", "all"],
        store: Path | None,
        data: Path | None,
        out: Path | None,
        trying: tuple[str, str],
        limits: dict[str, int],
        max_calls: int,
        settings: dict[str, Any],
    ) -> None:
        from optaware.cli._options import chat_ref, data_dir
        from optaware.records import DesignLimits, Protocol, parse_record
        from optaware.tasks import get_task, load_rows, load_splits

        self.task_name, self.task = task, get_task(task)
        self.limits = parse_record(DesignLimits, limits, "options")
        self.writer = chat_ref(llm, base_url, **settings)
        self.rewriter, self.judge = (
            self.writer if other is None else chat_ref(other, base_url, **settings) for other in others
        )
        self.store, self.out, self.max_calls = store_at(store), out, max_calls
        self.inspect, self.examples = trying
        self.judge_file = judge_file
        if protocol == "all" or self.task.rows is None:
            loaded = load_rows(self.task, "train", data_dir=data_dir(data))
            self.rows, self.source = loaded.examples, loaded.source
        else:
            splits = load_splits(self.task, Protocol(name=protocol), data_dir=data_dir(data))
            self.rows, self.source = splits.train, splits.source

    def spec(self, optimizer: str, paper: str, sha256: str, transferred_from: str | None) -> Any:
        """The spec of the build."""
        from optaware.data.design import make_design_spec

        return make_design_spec(
            task=self.task,
            task_name=self.task_name,
            rows=self.rows,
            optimizer=optimizer,
            paper=paper,
            paper_sha256=sha256,
            writer=self.writer,
            rewriter=self.rewriter,
            judge=self.judge,
            inspect=self.inspect,
            examples=self.examples,
            limits=self.limits,
            transferred_from=transferred_from,
            judge_file=self.judge_file,
            max_calls=self.max_calls,
        )

    def folder(self, optimizer: str) -> Path:
        """Folder of the build."""
        slug = "".join(c if c.isalnum() else "-" for c in optimizer.lower()).strip("-")[:40] or "optimizer"
        return self.out or self.store.root / "templates" / f"{slug}-{self.task.name}"

    def tell(self, spec: Any, optimizer: str) -> int:
        """What would be done."""
        from optaware.data.design import calls_at_most

        print(f"{self.folder(optimizer)}: at most {calls_at_most(spec)} requests, {len(self.rows)} rows to draw on.")
        return 0

    def designer(self, spec: Any, optimizer: str, should_stop: Callable[[], bool]) -> Any:
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
        voting = read_judge(self.judge_file)
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
            folder=self.folder(optimizer),
            source=self.source,
            on_step=_Teller(should_stop),
        )

    def finish(self, made: Callable[[Any], TemplateCard | None], spec: Any, optimizer: str, json: bool) -> int:
        """Make the template, print what came out."""
        from optaware.study import stop_requests

        folder = self.folder(optimizer)
        with stop_requests() as should_stop:
            card = made(self.designer(spec, optimizer, should_stop))
        if card is None:
            print(f"{folder}: the phases asked for are done; the same command without --until goes on.")
            return 0
        if json:
            print_json(card.to_json())
        else:
            _print_card(card, folder)
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


Folders = Annotated[
    tuple[Path, ...], Parameter("--folder", help="Further folders of builds (repeat). Default: STORE/templates.")
]


@app.command(name="list")
def list_(*, folder: Folders = (), store: StoreDir = None, json: AsJson = False) -> int:
    """List the built-in templates and the built ones."""
    from optaware.data.design import list_templates

    found = list_templates([store_at(store).root / "templates", *folder])
    if json:
        print_json([info.to_json() for info in found])
        return 0
    print_table(
        ["name", "kind", "task", "id", "examples", "valid", "note"],
        [[i.name, i.kind, i.task, i.template_id[:12], i.shots, i.valid, i.note] for i in found],
    )
    return 0


PhaseOf = Annotated[int | None, Parameter(help="The template that this phase left (0 to 5).")]


@app.command
def show(
    template: str,
    /,
    *,
    phase: PhaseOf = None,
    diff: Annotated[bool, Parameter(negative=(), help="Show what the phase changed instead.")] = False,
    exchanges: Annotated[bool, Parameter(negative=(), help="Show what the phase asked and was told instead.")] = False,
    folder: Folders = (),
    store: StoreDir = None,
    json: AsJson = False,
) -> int:
    """Show a template, what a phase changed in it, or the prompts and replies behind a phase.

    Parameters
    ----------
    template
        `oat`, `paraphrase`, a Jinja file, the folder of a build, or the name of a task that one was built for.
    """
    from optaware._io import read_jsonl
    from optaware.data.design import find_template
    from optaware.errors import InputError
    from optaware.llm import load_template

    path = find_template(template, (store_at(store).root / "templates", *folder), phase)
    if (diff or exchanges) and not (path.parent / "phase.json").is_file():
        raise InputError.of("design-phase", str(path), "it is not the template of a phase", "Give --phase 1 to 5.")
    if exchanges:
        said = read_jsonl(path.parent / "exchanges.jsonl")
        if json:
            print_json(said)
            return 0
        for row in said:
            print(f"=== {row['key']}\n--- asked\n{row['messages'][-1]['content']}\n--- replied\n{row['reply']}")
            print("--- " + ("kept: " + " | ".join(row["kept"]) if row["kept"] else "nothing was kept"))
            print("".join(f"--- dropped {text}\n" for text in row["dropped"]))
        return 0
    if diff:
        print((path.parent / "diff.txt").read_text("utf-8"), end="")
        return 0
    loaded = load_template(path)
    if json:
        modules = {
            module.name: module.read_text("utf-8") for module in sorted((path.parent / "fewshot").glob("*.yaml"))
        }
        built = modules if path.name == "template.jinja" else {}
        print_json(
            {"path": str(path), "id": loaded.id, "meta": dict(loaded.meta), "text": loaded.text, "fewshot": built}
        )
        return 0
    print(f"{path} · {loaded.id[:12]}", file=sys.stderr)
    print(loaded.text, end="")
    return 0


@app.command
def diff(
    one: str,
    other: str | None = None,
    /,
    *,
    phases: Annotated[tuple[int, int] | None, Parameter(help="Two phases of ONE, `--phases 3 4`.")] = None,
    folder: Folders = (),
    store: StoreDir = None,
) -> int:
    """Show how two templates and their few-shot modules differ; exit code 1 when they do.

    Parameters
    ----------
    one
        As for `show`.
    other
        The other one.
    """
    from optaware.data.design import compare, find_template
    from optaware.errors import InputError

    if (other is None) == (phases is None):
        raise InputError.of("design-two", "diff", "two templates are compared", "Give two templates, or --phases.")
    places = (store_at(store).root / "templates", *folder)
    first, second = phases or (None, None)
    text = compare(find_template(one, places, first), find_template(other or one, places, second))
    print(text, end="")
    return 1 if text else 0
