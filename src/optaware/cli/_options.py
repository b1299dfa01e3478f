from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

__all__ = [
    "AsJson",
    "BaseUrl",
    "DataDir",
    "Llm",
    "ProtocolName",
    "Rewriter",
    "StoreDir",
    "chat_ref",
    "data_dir",
    "print_json",
    "print_table",
    "store_at",
]

StoreDir = Annotated[
    Path | None,
    Parameter("--store", help="Folder of results. Default: $OPTAWARE_STORE, else ./optaware-results."),
]
DataDir = Annotated[
    Path | None,
    Parameter(
        "--data-dir", help="Folder with TASK/SPLIT.jsonl files. Default: $OPTAWARE_DATA_DIR, else packaged data."
    ),
]
ProtocolName = Annotated[
    Literal["oat", "mezo"] | None,
    Parameter("--protocol", help="Take the rows of a published protocol. Default: all rows of the source's split."),
]
AsJson = Annotated[bool, Parameter("--json", negative=(), help="Print JSON instead of a table.")]


Llm = Annotated[
    str | None,
    Parameter("--llm", help="Chat model: hub name, path or asset; a .jsonl file: scripted replies."),
]
BaseUrl = Annotated[str | None, Parameter("--base-url", help="OpenAI-compatible endpoint that serves --llm.")]


def chat_ref(llm: str, base_url: str | None, **settings: Any) -> Any:
    """The chat model that `--llm` and `--base-url` name: an endpoint's, a scripted one (`.jsonl`), or a local one."""
    from optaware.records import ChatModelRef, parse_record

    provider = "openai" if base_url else "scripted" if llm.endswith(".jsonl") else "local"
    data = {"provider": provider, "model": llm, "base_url": base_url, **settings}
    return parse_record(ChatModelRef, data, "--llm/--base-url")


Rewriter = Annotated[
    str | None,
    Parameter("--llm", help="Rewriter: hub name, path or asset of a chat model; a .jsonl file: scripted replies."),
]


def store_at(folder: Path | None) -> Any:
    """The results store that the options name."""
    from optaware.store import Store

    return Store(folder or Path(os.environ.get("OPTAWARE_STORE") or "optaware-results"))


def data_dir(folder: Path | None) -> Path | None:
    """The data folder that the options name."""
    if folder is None and (chosen := os.environ.get("OPTAWARE_DATA_DIR")):
        return Path(chosen)
    return folder


def print_json(value: Any) -> None:
    """Print one JSON value to standard output."""
    print(json.dumps(value, ensure_ascii=False, indent=2))


def print_table(columns: list[str], rows: list[list[Any]], title: str | None = None) -> None:
    """Print a table to standard output: drawn on a terminal, tab-separated otherwise."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        print("\t".join(columns))
        for row in rows:
            print("\t".join("" if cell is None else str(cell) for cell in row))
        return
    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        # Text, because a plain string is read as markup, where "[abc]" vanishes.
        table.add_row(*(Text("" if cell is None else str(cell)) for cell in row))
    console.print(table)
