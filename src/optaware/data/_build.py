"""Making a corpus: rewrite, check, judge, gate; every step streamed, resumable, and paid for once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from optaware._io import JsonlAppender, lock, read_json, read_jsonl, write_json
from optaware.data._card import finish
from optaware.data._corpus import rows_sha256
from optaware.data._prompts import QUESTIONS, judge_prompts, rewriter_prompt
from optaware.data._work import OnProgress, Work
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
) -> DatasetCard:
    """Make a rewritten corpus in `folder`, or go on with it: the same call again resumes and pays nothing twice.

    Each training row gets one rewrite (`candidates.jsonl`). What passes the blocking checks is judged, `meaning` first,
    and `role` where `meaning` is the same (`verdicts.jsonl`). A rewrite that both find the same replaces the span;
    otherwise the original row stays (`decisions.jsonl`, `train.jsonl`, `card.json`, then `DONE`). `rows = accepted +
    rejected + failed` always. Replies are appended as they come; at the end all files stand in the order of the rows,
    so they do not depend on who answered first or where a run was stopped.

    Replies that have not the form asked for are final and counted as failed. Calls that failed are not: once all other
    rows are done the corpus is left unfinished, and the next call asks for those rows again. Calls that the endpoint
    refuses for the row's own sake (refusal, too long, filtered) are final.

    Differs from the paper: the rewriter does not see the right answer, the judge is asked its two questions one by one,
    automatic checks come first, and every row is rewritten once, with no second try until it passes.

    Args:
        spec: What to make; `make_corpus_spec` makes it.
        task: The task.
        examples: The training rows.
        rewriter: Answers the rewriter's prompts; request keys are `rewrite:<example id>`.
        judge: Answers the judge's prompts; request keys are `meaning:<example id>` and `role:<example id>`.
        folder: Folder of the corpus.
        source: Where the rows came from.
        on_progress: Called after every reply; what it raises stops the corpus in good order.

    Raises:
        InputError: Rows, prompts or folder are not those of the spec.
        EndpointError: The endpoint cannot be used, or calls failed for the stated number of rows.
        BudgetExhausted: A budget is spent.
    """
    with lock(folder / ".build.lock"):
        if (folder / "DONE").is_file():
            return parse_record(DatasetCard, read_json(folder / "card.json"), str(folder / "card.json"))
        rewriting, judging = rewriter_prompt(task, spec.template), judge_prompts(task, spec.template)
        _check(
            spec, examples, folder, {"rewrite": rewriting.id, **{name: prompt.id for name, prompt in judging.items()}}
        )
        with ExitStack() as stack:
            spent = stack.enter_context(_timed(folder / "sessions.jsonl"))
            work = Work(spec, examples, (rewriting, judging), folder, stack, on_progress)
            work.rewrite(rewriter)
            for question in QUESTIONS:
                work.judge(judge, question)
            work.raise_if_incomplete()
            return finish(
                spec,
                task,
                examples,
                decisions=work.decisions(),
                candidates=work.candidates,
                verdicts=work.verdicts,
                folder=folder,
                source=source,
                wall_s=spent(),
            )


def _check(spec: CorpusSpec, examples: Sequence[Example], folder: Path, prompts: Mapping[str, str]) -> None:
    problems = ProblemList(spec.slug)
    if rows_sha256(examples) != spec.rows_sha256:
        problems.add(
            "rows-changed",
            f"{len(examples)} training rows of {spec.task}",
            "they are not those that the spec was made for",
            "Use the same data and protocol, or make the spec again.",
        )
    if len({example.id for example in examples}) < len(examples):
        problems.add("rows-repeated", spec.task, "two training rows have the same id", "Give each row once.")
    if prompts != {"rewrite": spec.rewriter_prompt_id, **spec.judge_prompt_ids}:
        problems.add(
            "prompt-changed",
            f"template {spec.template}",
            "template, few-shot module or task description are not those that the spec was made for",
            "Make the spec again; the corpus of the new prompts gets a folder of its own.",
        )
    path = folder / "spec.json"
    if path.is_file() and fingerprint(parse_record(CorpusSpec, read_json(path), str(path))) != fingerprint(spec):
        problems.add("folder-taken", str(folder), "it holds the corpus of another spec", "Choose another folder.")
    problems.raise_if_any()
    if not path.is_file():
        write_json(path, spec.to_json())


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
