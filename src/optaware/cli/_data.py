from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from optaware.cli import _data_calibrate, _data_review
from optaware.cli._options import AsJson, DataDir, ProtocolName, StoreDir, data_dir, print_json, store_at

__all__ = ["app"]

app = App(name="data", help="Rewrite, judge, gate and review training data.")
app.command(_data_calibrate.calibrate)
app.command(_data_review.review)
app.command(_data_review.agreement)


@app.command
def preview(
    task: str,
    /,
    *,
    template: Annotated[str, Parameter(help="Rewriter template: `oat`, `paraphrase` or a Jinja file.")] = "oat",
    rows: Annotated[int, Parameter(name=("--rows", "-n"), help="How many rows.")] = 3,
    protocol: ProtocolName = None,
    data: DataDir = None,
    json: AsJson = False,
) -> int:
    """Show the prompts that would be sent for a few training rows. Calls no model and spends nothing.

    Parameters
    ----------
    task
        Built-in task or task file.
    """
    from optaware.cli._rows import rows_of
    from optaware.data import preview as render
    from optaware.tasks import get_task

    chosen = get_task(task)
    shown = render(chosen, rows_of(chosen, "train", protocol, data_dir(data)), template, rows)
    if json:
        print_json(shown)
        return 0
    for item in shown:
        print(f"=== {item['example_id']} · {item['kind']} · prompt {item['prompt_id'][:12]}")
        for message in item["messages"]:
            print(f"--- {message['role']}\n{message['content']}")
        print()
    return 0


@app.command
def rewrite(
    spec: Path,
    /,
    *,
    store: StoreDir = None,
    data: DataDir = None,
    quiet: Annotated[bool, Parameter(negative=(), help="Print nothing but the result.")] = False,
    json: AsJson = False,
) -> int:
    """Make one rewritten corpus from its spec: rewrite, judge, gate. The same command resumes and pays nothing twice.

    `optaware run` writes the specs of a study's corpora; `spec.json` in a corpus folder is one.

    Parameters
    ----------
    spec
        Corpus spec (YAML or JSON).
    """
    from optaware._io import read_yaml, write_json
    from optaware.errors import StoppedBySignal
    from optaware.records import CorpusSpec, parse_record
    from optaware.study import rewrite_one, stop_requests

    corpus = parse_record(CorpusSpec, read_yaml(spec), str(spec))
    folder = store_at(store).corpus_folder(corpus)
    written = 0.0
    with stop_requests() as should_stop:

        def moved(done: int, total: int, what: str = "") -> None:
            nonlocal written
            if should_stop():
                raise StoppedBySignal.of(
                    "stopped", corpus.slug, "a stop was asked for", "The same command goes on from here."
                )
            if time.monotonic() - written >= 1.0 or done == total:
                written = time.monotonic()
                write_json(folder / "progress.json", {"done": done, "total": total, "part": what})
                if not quiet:
                    print(f"{what} {done}/{total}", file=sys.stderr, flush=True)

        card = rewrite_one(corpus, store_at(store), data_dir=data_dir(data), on_progress=moved)
    if json:
        print_json(card.to_json())
    else:
        print(f"{folder}: {card.accepted} of {card.rows} rewrites accepted ({100 * card.rewriter_accuracy:.1f} %)")
    return 0


@app.command
def show(
    corpus: str,
    /,
    *,
    store: StoreDir = None,
    outcome: Annotated[str | None, Parameter(help="Only rows that were accepted, rejected or failed.")] = None,
    rows: Annotated[int, Parameter(name=("--rows", "-n"), help="How many rows.")] = 10,
    json: AsJson = False,
) -> int:
    """Show rows of a corpus: original, rewrite, what the gate decided and why.

    Parameters
    ----------
    corpus
        Corpus id, or the folder itself.
    """
    from optaware._io import read_jsonl

    path = Path(corpus)
    folder = path if (path / "spec.json").exists() else store_at(store).find_corpus(corpus)
    decisions: list[dict[str, Any]] = [
        row for row in read_jsonl(folder / "decisions.jsonl") if outcome in (None, row["outcome"])
    ][:rows]
    if json:
        print_json(decisions)
        return 0
    for row in decisions:
        print(f"{row['example_id']}  {row['outcome']}: {row['reason']}")
        print(f"  original:  {row['original']}\n  rewritten: {row['rewritten']}\n")
    return 0
