from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from optaware.cli._options import AsJson, DataDir, data_dir, print_json, print_table

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
    protocol: Annotated[str, Parameter(help="Split protocol: oat, mezo or free.")] = "oat",
    style: Annotated[str, Parameter(help="Prompt style of the task.")] = "default",
    rows: Annotated[int, Parameter(name=("--rows", "-n"), help="How many rows.")] = 2,
    data: DataDir = None,
    json: AsJson = False,
) -> int:
    """Show a task's splits and the prompts and answer options of its first training rows.

    Parameters
    ----------
    task
        Built-in task or task file.
    """
    from optaware.records import Protocol, parse_record
    from optaware.tasks import get_task, load_splits

    chosen = get_task(task)
    splits = load_splits(chosen, parse_record(Protocol, {"name": protocol}, "--protocol"), data_dir=data_dir(data))
    shown = [chosen.render(example, style=style).to_json() for example in splits.train[:rows]]
    sizes = {"train": len(splits.train), "dev": len(splits.dev), "test": len(splits.test)}
    facts = {
        "task": chosen.name,
        "title": chosen.title,
        "prompt_styles": list(chosen.prompt_styles),
        "sizes": sizes,
        "majority_share": round(splits.majority_share("test"), 4),
        "drawn_from": splits.drawn_from,
        "overlap": splits.overlap,
        "notes": list(splits.notes),
        "source": splits.source.to_json(),
    }
    if json:
        print_json({**facts, "rows": shown})
        return 0
    print(f"{chosen.name}: {chosen.title}")
    print(f"  {sizes['train']} train, {sizes['dev']} dev, {sizes['test']} test rows ({splits.source.kind})")
    print(f"  majority class {100 * splits.majority_share('test'):.1f} % of the test rows")
    print(f"  prompt styles: {', '.join(chosen.prompt_styles)}")
    for note in splits.notes:
        print(f"  {note}")
    for row in shown:
        print(f"--- {row['id']}\n{row['prompt']}")
        for index, option in enumerate(row["options"]):
            print(f"  {'*' if index == row['label'] else ' '} {option!r}")
    return 0
