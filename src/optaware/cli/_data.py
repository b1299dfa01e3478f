from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from optaware.cli import _data_calibrate, _data_review, _data_template
from optaware.cli._options import AsJson, DataDir, ProtocolName, StoreDir, data_dir, print_json, store_at

__all__ = ["app"]

app = App(name="data", help="Rewrite, judge, gate and review training data.")
app.command(_data_calibrate.calibrate)
app.command(_data_review.review)
app.command(_data_review.agreement)
app.command(_data_template.app)


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
