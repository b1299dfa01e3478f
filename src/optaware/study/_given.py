"""Rewritten rows that somebody brings: a corpus without rewriter, judge or gate, in the same folder layout."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from optaware._io import file_sha256, text_sha256, write_json, write_jsonl
from optaware.data import load_user_corpus, rows_sha256
from optaware.errors import InputError
from optaware.records import (
    ChatModelRef,
    CorpusSpec,
    DatasetCard,
    DataSource,
    Decision,
    Example,
    StudySpec,
    VariantSpec,
    short_id,
)
from optaware.tasks import Task

__all__ = ["given_corpus_spec", "take_given_rows"]

_NOBODY = ChatModelRef(provider="scripted", model="rows that were given")


def given_corpus_spec(
    study: StudySpec, task: Task, name: str, variant: VariantSpec, rows: Sequence[Example]
) -> CorpusSpec:
    """The spec of a corpus that is a file of the user's. All faults of the file are found here, before anything runs.

    Raises:
        InputError: The file is missing, or rows are wrong (see `optaware.data.load_user_corpus`); all at once.
    """
    path = _path(study, task, variant)
    load_user_corpus(path, task, rows)
    return CorpusSpec(
        task=name,
        task_sha256=task.sha256,
        protocol=study.protocol,
        variant=variant.name,
        rewriter=_NOBODY,
        judge=_NOBODY,
        rewriter_prompt_id=text_sha256(""),
        judge_prompt_ids={},
        template="",
        gate=study.gate,
        rows_sha256=rows_sha256(rows),
        given=str(path.resolve()),
        given_sha256=file_sha256(path),
    )


def _path(study: StudySpec, task: Task, variant: VariantSpec) -> Path:
    pattern = variant.rows or ""
    if len(study.tasks) > 1 and "{task}" not in pattern:
        raise InputError.of(
            "rows-one-file",
            f"variant {variant.name!r}: {pattern}",
            f"one file cannot hold the rows of {len(study.tasks)} tasks",
            "Put {task} into its name, as in rows/{task}.jsonl.",
        )
    path = Path(pattern.replace("{task}", task.name)).expanduser()
    if not path.is_file():
        raise InputError.of("file-missing", str(path), "there is no such file", f"Give the rows of {task.name} there.")
    return path


def take_given_rows(
    spec: CorpusSpec, task: Task, examples: Sequence[Example], folder: Path, source: DataSource
) -> DatasetCard:
    """Write the corpus folder for rows that were given; every row counts as accepted, since nobody judged it.

    Raises:
        InputError: The file is gone, was changed since the study was planned, or holds rows that are wrong.
    """
    path = Path(spec.given or "")
    if not path.is_file() or file_sha256(path) != spec.given_sha256:
        raise InputError.of(
            "rows-changed", str(path), "it is gone or not the file that the study was planned with", "Plan it again."
        )
    rows = load_user_corpus(path, task, examples)
    before = [task.span_text(example) for example in examples]
    after = [task.span_text(row) for row in rows]
    decisions = [
        Decision(example_id=example.id, outcome="accepted", reason="given", original=old, rewritten=new, attempts=0)
        for example, old, new in zip(examples, before, after, strict=True)
    ]
    write_jsonl(folder / "train.jsonl", ({"example_id": row.id, **row.fields} for row in rows))
    write_jsonl(folder / "decisions.jsonl", (decision.to_json() for decision in decisions))
    card = DatasetCard(
        corpus_id=short_id(spec),
        task=spec.task,
        variant=spec.variant,
        rows=len(rows),
        accepted=len(rows),
        rejected=0,
        failed=0,
        identical=sum(old == new for old, new in zip(before, after, strict=True)),
        reasons={"given": len(rows)},
        rewriter=f"given: {path.name}",
        judge="nobody",
        rewriter_prompt_id=spec.rewriter_prompt_id,
        judge_prompt_ids={},
        words_before=_words(before),
        words_after=_words(after),
        calls=0,
        cached_calls=0,
        prompt_tokens=0,
        completion_tokens=0,
        cost_usd=0.0,
        wall_s=0.0,
        source=source,
        licence=task.licence,
    )
    write_json(folder / "card.json", card.to_json())
    written = {name: file_sha256(folder / name) for name in ("train.jsonl", "decisions.jsonl", "card.json")}
    write_json(folder / "DONE", {"sha256": written})
    return card


def _words(texts: Sequence[str]) -> float:
    return sum(len(text.split()) for text in texts) / max(1, len(texts))
