"""Making a corpus: rewrite, check, judge, gate; every step streamed, resumable, and paid for once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from optaware._io import JsonlAppender, lock, read_json, read_jsonl, remove_half_files, write_json
from optaware.data._board import OnProgress
from optaware.data._card import finish
from optaware.data._choose import Choice
from optaware.data._corpus import rows_sha256
from optaware.data._judge_file import read_judge
from optaware.data._measure import Measure
from optaware.data._near import HeldOut
from optaware.data._prompts import judge_prompts, rewriter_prompt
from optaware.data._rows import RowIndex
from optaware.data._work import Work
from optaware.errors import ProblemList
from optaware.llm import ChatModel
from optaware.records import (
    CorpusSpec,
    DatasetCard,
    DataSource,
    Example,
    fingerprint,
    parse_record,
)
from optaware.tasks import Task

__all__ = ["OnProgress", "build_corpus"]


def build_corpus(
    spec: CorpusSpec,
    task: Task,
    examples: Sequence[Example],
    *,
    rewriter: ChatModel,
    judge: ChatModel,
    folder: Path,
    source: DataSource,
    on_progress: OnProgress | None = None,
    held_out: HeldOut | None = None,
    measure: Measure | None = None,
    give_up: bool = False,
    before_done: Callable[[], None] = lambda: None,
) -> DatasetCard:
    """Make a rewritten corpus in `folder`, or go on with it: the same call again resumes and pays nothing twice.

    Each training row gets a rewrite (`candidates.jsonl`). What passes the blocking checks is judged, `meaning` first,
    and `role` where `meaning` is the same (`verdicts.jsonl`). A rewrite that both find the same replaces the span;
    otherwise the original row stays (`decisions.jsonl`, `train.jsonl`, `card.json`, `README.md`, then `DONE`). `rows =
    accepted + rejected + failed` always. Replies are appended as they come; at the end all files stand in the order of
    the rows, so they do not depend on who answered first or where a run was stopped.

    With `spec.retries` a rejected row is rewritten again, up to so many times; the rewriter sees its last try and why
    that was rejected: the check's finding, or what the judge says (`reasons.jsonl`). The first try that passes is used.
    With `spec.search` every row gets several rewrites; of those that pass, the one that `measure` gives the lowest
    score is used (`measures.jsonl`), the first among equals, so that the same replies make the same corpus.

    Replies that have not the form asked for are final and counted as failed, unless there are retries. Calls that
    failed are not final: once all other rows are done the corpus is left unfinished, and the next call asks for those
    rows again, or takes them as failed with `give_up`. Calls that the endpoint refuses for the row's own sake (refusal,
    too long, filtered) are final.

    Memory does not grow with the replies: they stay on disk, and a row takes some tens of bytes. `examples` may be any
    sequence, also one that reads rows when they are asked for.

    Differs from the paper: the rewriter does not see the right answer, the judge is asked its two questions one by one,
    automatic checks come first, and without `retries` no row gets a second try.

    Args:
        spec: What to make; `make_corpus_spec` makes it.
        task: The task.
        examples: The training rows.
        rewriter: Answers the rewriter's prompts; request keys are `rewrite:<example id>`.
        judge: Answers the judge's prompts; request keys are `meaning:<example id>` and `role:<example id>` (of a later
            try `meaning#1:<example id>` and so on).
        folder: Folder of the corpus.
        source: Where the rows came from.
        on_progress: Called after every reply; what it raises stops the corpus in good order.
        held_out: Spans of dev and test rows; a rewrite that comes near one is rejected.
        measure: What a search asks about training rows; needed when the spec's search prefers anything but `first`.
        give_up: Count calls that failed and may pass as failed for good; their rows keep the original.
        before_done: Called when all files are written, before the marker; for what else belongs to a finished corpus.

    Raises:
        InputError: Rows, prompts or folder are not those of the spec.
        EndpointError: The endpoint cannot be used, or calls failed for the stated number of rows.
        BudgetExhausted: A budget is spent.
    """
    with lock(folder / ".build.lock"):
        if (folder / "DONE").is_file():
            return parse_record(DatasetCard, read_json(folder / "card.json"), str(folder / "card.json"))
        remove_half_files(folder)
        rewriting = rewriter_prompt(task, spec.template)
        judging = judge_prompts(task, spec.template, read_judge(spec.judge_file))
        prompts: dict[str, str] = {"rewrite": rewriting.id}
        prompts |= {question: prompt.id for question, prompt in judging.items()}
        index = RowIndex(examples)
        _check(spec, examples, index, folder, prompts, held_out, measure)
        with ExitStack() as stack:
            spent = stack.enter_context(_timed(folder / "sessions.jsonl"))
            work = Work(spec, examples, index, (rewriting, judging), folder, stack, on_progress, held_out)
            work.ask(rewriter, judge)
            work.raise_if_incomplete(give_up=give_up)
            choice = Choice(work)
            if measure is not None and work.measures is not None:
                choice.measure(measure)
            return finish(
                work,
                choice.decisions(),
                folder,
                source,
                spent(),
                measure.forwards_per_row if measure is not None else 0,
                before_done,
            )


def _check(
    spec: CorpusSpec,
    examples: Sequence[Example],
    index: RowIndex,
    folder: Path,
    prompts: Mapping[str, str],
    held_out: HeldOut | None,
    measure: Measure | None,
) -> None:
    problems = ProblemList(spec.slug)
    if rows_sha256(examples) != spec.rows_sha256:
        problems.add(
            "rows-changed",
            f"{len(examples)} training rows of {spec.task}",
            "they are not those that the spec was made for",
            "Use the same data and protocol, or make the spec again.",
        )
    if index.has_repeats:
        problems.add("rows-repeated", spec.task, "two training rows have the same id", "Give each row once.")
    if prompts != {"rewrite": spec.rewriter_prompt_id, **spec.judge_prompt_ids}:
        problems.add(
            "prompt-changed",
            f"template {spec.template}",
            "template, few-shot module, judge or task description are not those that the spec was made for",
            "Make the spec again; the corpus of the new prompts gets a folder of its own.",
        )
    if (held_out.sha256 if held_out is not None else None) != spec.held_out_sha256:
        problems.add(
            "held-out-changed",
            f"{0 if held_out is None else len(held_out)} held-out texts",
            "they are not those that the spec was made for",
            "Use the same data and protocol, or make the spec again.",
        )
    if measure is None and spec.search is not None and spec.search.prefer != "first":
        problems.add(
            "measure-missing",
            f"search by {spec.search.prefer}",
            "nothing was handed in that measures",
            "Use `optaware.study.rewrite_one`, or pass `measure`.",
        )
    path = folder / "spec.json"
    if path.is_file() and _less_keys(parse_record(CorpusSpec, read_json(path), str(path))) != _less_keys(spec):
        problems.add("folder-taken", str(folder), "it holds the corpus of another spec", "Choose another folder.")
    problems.raise_if_any()
    if not path.is_file():
        write_json(path, spec.to_json())


def _less_keys(spec: CorpusSpec) -> str:
    """The spec's hash whatever the variables with the keys are called: a stopped corpus goes on under another key."""
    rewriter, judge = (ref.model_copy(update={"api_key_env": "KEY"}) for ref in (spec.rewriter, spec.judge))
    return fingerprint(spec.model_copy(update={"rewriter": rewriter, "judge": judge}))


@contextmanager
def _timed(path: Path) -> Iterator[Callable[[], float]]:
    """Seconds spent on the corpus, over all calls that ended in order (a killed one leaves no time)."""
    began = time.monotonic()
    with JsonlAppender(path) as sessions:
        before = sum(float(row["wall_s"]) for row in read_jsonl(path))
        try:
            yield lambda: before + time.monotonic() - began
        finally:
            sessions.append({"wall_s": round(time.monotonic() - began, 3)})
