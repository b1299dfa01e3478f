from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from optaware._io import lock, read_json, remove_half_files, write_json
from optaware.data import HeldOut, build_corpus, read_judge, rows_sha256
from optaware.data.evidence import collect_evidence
from optaware.errors import InputError
from optaware.llm import ChatModel, open_chat
from optaware.records import ChatModelRef, CorpusSpec, DatasetCard, parse_record, short_id
from optaware.store import Store, environment
from optaware.study._evidence import write_evidence
from optaware.study._given import take_given_rows
from optaware.study._row_measure import open_measure
from optaware.tasks import get_task, load_splits

__all__ = ["rewrite_one"]


def rewrite_one(
    spec: CorpusSpec,
    store: Store,
    *,
    data_dir: Path | None = None,
    on_progress: Callable[..., None] | None = None,
    on_usage: Callable[[Any], None] | None = None,
    folder: Path | None = None,
    give_up: bool = False,
) -> DatasetCard:
    """Make one rewritten corpus: rewrite, judge, gate. Calling it again resumes and pays for no reply twice.

    Args:
        spec: What to make.
        store: Holds the cache of replies, and the corpus unless `folder` is given.
        data_dir: Folder of data sets.
        on_progress: See `optaware.data.build_corpus`.
        on_usage: Called with the running totals after every reply.
        folder: Where the corpus goes; by default a folder of the store, named by the spec's hash.
        give_up: Calls that failed for good count as failed rows; see `build_corpus`.

    Raises:
        InputError: The task's rows are not those that the spec was made for.
        EndpointError, BudgetExhausted: As `optaware.data.build_corpus` says.
    """
    folder = folder or store.corpus_folder(spec)
    with lock(folder / ".lock"):
        if (folder / "DONE").exists():
            return parse_record(DatasetCard, read_json(folder / "card.json"), str(folder / "card.json"))
        remove_half_files(folder)
        task = get_task(spec.task)
        splits = load_splits(task, spec.protocol, data_dir=data_dir)
        held_out = HeldOut.of(task, (*splits.dev, *splits.test)) if spec.held_out_sha256 else None
        if rows_sha256(splits.train) != spec.rows_sha256:
            raise InputError.of(
                "rows-changed",
                spec.task,
                "the training rows are not those that the spec was made for",
                "Use the same data folder and protocol, or plan the study again.",
            )
        if not (folder / "spec.json").exists():
            write_json(folder / "spec.json", spec.to_json())
        write_json(folder / "env.json", environment())
        if spec.given is not None:
            return take_given_rows(spec, task, splits.train, folder, splits.source)
        cache = store.chat_cache()

        def opened(ref: ChatModelRef) -> ChatModel:
            return open_chat(ref, cache=cache, on_usage=on_usage, payer=short_id(spec))

        rewriter = opened(spec.rewriter)
        same = spec.judge.model_copy(update=_SAMPLING) == spec.rewriter.model_copy(update=_SAMPLING)
        judge = rewriter if same else opened(spec.judge)
        panel = _panel(spec, judge, opened)

        def before_done() -> None:
            # What the texts alone tell costs seconds, so every corpus has it; the model's view is asked for by name.
            found = collect_evidence(folder, task, splits.train, held_out=held_out, marked=False)
            write_evidence(folder, found)

        return build_corpus(
            spec,
            task,
            splits.train,
            rewriter=rewriter,
            judge=panel,
            folder=folder,
            source=splits.source,
            on_progress=on_progress,
            held_out=held_out,
            measure=open_measure(spec.search, task),
            give_up=give_up,
            before_done=before_done,
        )


def _panel(spec: CorpusSpec, judge: ChatModel, opened: Callable[[ChatModelRef], ChatModel]) -> ChatModel:
    """The judge, or where the judge's file asks for several ballots, the panel that takes them."""
    voting = read_judge(spec.judge_file)
    if voting is None or not voting.votes:
        return judge
    from optaware.data.judge import JudgePanel

    return JudgePanel((judge, *map(opened, voting.members)), voting.orders, voting.rule)


_SAMPLING = {"max_tokens": 0, "temperature": 0.0, "seed": 0, "concurrency": 0}
"""Fields in which rewriter and judge may differ and still be served by one loaded model."""
