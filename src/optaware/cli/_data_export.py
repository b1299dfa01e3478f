from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from optaware.cli._options import StoreDir, store_at

__all__ = ["export"]


def export(
    corpus: str,
    /,
    *,
    out: Annotated[Path, Parameter(name=("--out", "-o"), help="New folder for the rows and their card.")],
    format: Annotated[Literal["parquet", "jsonl", "datasets"], Parameter(help="Of the rows.")] = "parquet",
    style: Annotated[
        Literal["sft", "rows"],
        Parameter(help="sft: `prompt` and `completion`, as TRL takes them; rows: the task's own columns."),
    ] = "sft",
    prompt: Annotated[str, Parameter(help="Prompt style of the task.")] = "default",
    store: StoreDir = None,
) -> int:
    """Write a finished corpus for others, with its card, into a folder that can be passed on as it is.

    Parameters
    ----------
    corpus
        Corpus id, or its folder.
    """
    from optaware.data import export_corpus, read_corpus_spec
    from optaware.tasks import get_task

    path = Path(corpus)
    folder = path if (path / "spec.json").exists() else store_at(store).find_corpus(corpus)
    spec = read_corpus_spec(folder)
    print(export_corpus(folder, get_task(spec.task), out, format=format, style=style, prompt=prompt))
    return 0
