from __future__ import annotations

from typing import Annotated, Any

from cyclopts import App, Parameter

from optaware.cli._options import AsJson, DataDir, ProtocolName, data_dir, print_json, print_table

__all__ = ["app"]

app = App(name="tasks", help="Tasks: what they are, and how a row becomes a prompt.")


@app.command(name="list")
def list_(*, json: AsJson = False) -> int:
    """List the built-in tasks."""
    from optaware.tasks import get_task, list_tasks

    rows = [
        {"task": task.name, "rewritten span": task.span, "loss": task.loss, "licence": task.licence}
        for task in map(get_task, list_tasks())
    ]
    if json:
        print_json(rows)
    else:
        print_table(list(rows[0]), [[*row.values()] for row in rows])
    return 0


@app.command
def show(
    task: str,
    /,
    *,
    protocol: ProtocolName = None,
    style: Annotated[str, Parameter(help="Prompt style of the task.")] = "default",
    rows: Annotated[int, Parameter(name=("--rows", "-n"), help="How many rows.")] = 2,
    data: DataDir = None,
    json: AsJson = False,
) -> int:
    """Show a task: its splits, and the prompts and answer options of its first rows.

    Parameters
    ----------
    task
        Built-in task or task file.
    """
    from optaware.records import Protocol
    from optaware.tasks import get_task, load_rows, load_splits

    chosen = get_task(task)
    facts: dict[str, Any] = {
        "task": chosen.name,
        "title": chosen.title,
        "description": chosen.description,
        "prompt_styles": list(chosen.prompt_styles),
    }
    if protocol is None:
        found = load_rows(chosen, "train", data_dir=data_dir(data))
        facts |= {"rows": found.sizes, "shown_from": found.split, "source": found.source.to_json()}
        examples = found.examples
    else:
        splits = load_splits(chosen, Protocol(name=protocol), data_dir=data_dir(data))
        facts |= {
            "rows": {"train": len(splits.train), "dev": len(splits.dev), "test": len(splits.test)},
            "majority_share_of_test": round(splits.majority_share("test"), 4),
            "drawn_from": splits.drawn_from,
            "overlap": splits.overlap,
            "notes": list(splits.notes),
            "source": splits.source.to_json(),
        }
        examples = splits.train
    shown = [chosen.render(example, style=style).to_json() for example in examples[:rows]]
    if json:
        print_json({**facts, "examples": shown})
        return 0
    print_table(["what", ""], [[name, value] for name, value in facts.items() if value])
    for row in shown:
        print(f"--- {row['id']}\n{row['prompt']}")
        for index, option in enumerate(row["options"]):
            print(f"  {'*' if index == row['label'] else ' '} {option!r}")
    return 0
