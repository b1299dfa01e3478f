from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from optaware.cli import _template_build
from optaware.cli._options import AsJson, StoreDir, print_json, print_table, store_at

__all__ = ["app"]

app = App(name="template", help="Build a rewriter's prompt template from a paper; carry it over to other tasks.")
app.command(_template_build.build)
app.command(_template_build.transfer)

Folders = Annotated[
    tuple[Path, ...], Parameter("--folder", help="Further folders of builds (repeat). Default: STORE/templates.")
]


@app.command(name="list")
def list_(*, folder: Folders = (), store: StoreDir = None, json: AsJson = False) -> int:
    """List the built-in templates and the built ones."""
    from optaware.data.design import list_templates

    found = list_templates([store_at(store).root / "templates", *folder])
    if json:
        print_json([info.to_json() for info in found])
        return 0
    print_table(
        ["name", "kind", "task", "id", "examples", "valid", "note"],
        [[i.name, i.kind, i.task, i.template_id[:12], i.shots, i.valid, i.note] for i in found],
    )
    return 0


PhaseOf = Annotated[int | None, Parameter(help="The template that this phase left (0 to 5).")]


@app.command
def show(
    template: str,
    /,
    *,
    phase: PhaseOf = None,
    diff: Annotated[bool, Parameter(negative=(), help="Show what the phase changed instead.")] = False,
    exchanges: Annotated[bool, Parameter(negative=(), help="Show what the phase asked and was told instead.")] = False,
    folder: Folders = (),
    store: StoreDir = None,
    json: AsJson = False,
) -> int:
    """Show a template, what a phase changed in it, or the prompts and replies behind a phase.

    Parameters
    ----------
    template
        `oat`, `paraphrase`, a Jinja file, the folder of a build, or the name of a task that one was built for.
    """
    from optaware._io import read_jsonl
    from optaware.data.design import find_template
    from optaware.errors import InputError
    from optaware.llm import load_template

    path = find_template(template, (store_at(store).root / "templates", *folder), phase)
    if (diff or exchanges) and not (path.parent / "phase.json").is_file():
        raise InputError.of("design-phase", str(path), "it is not the template of a phase", "Give --phase 1 to 5.")
    if exchanges:
        said = read_jsonl(path.parent / "exchanges.jsonl")
        if json:
            print_json(said)
            return 0
        for row in said:
            print(f"=== {row['key']}\n--- asked\n{row['messages'][-1]['content']}\n--- replied\n{row['reply']}")
            print("--- " + ("kept: " + " | ".join(row["kept"]) if row["kept"] else "nothing was kept"))
            print("".join(f"--- dropped {text}\n" for text in row["dropped"]))
        return 0
    if diff:
        print((path.parent / "diff.txt").read_text("utf-8"), end="")
        return 0
    loaded = load_template(path)
    if json:
        modules = {
            module.name: module.read_text("utf-8") for module in sorted((path.parent / "fewshot").glob("*.yaml"))
        }
        built = modules if path.name == "template.jinja" else {}
        print_json(
            {"path": str(path), "id": loaded.id, "meta": dict(loaded.meta), "text": loaded.text, "fewshot": built}
        )
        return 0
    print(f"{path} · {loaded.id[:12]}", file=sys.stderr)
    print(loaded.text, end="")
    return 0


@app.command
def diff(
    one: str,
    other: str | None = None,
    /,
    *,
    phases: Annotated[tuple[int, int] | None, Parameter(help="Two phases of ONE, `--phases 3 4`.")] = None,
    folder: Folders = (),
    store: StoreDir = None,
) -> int:
    """Show how two templates and their few-shot modules differ; exit code 1 when they do.

    Parameters
    ----------
    one
        As for `show`.
    other
        The other one.
    """
    from optaware.data.design import compare, find_template
    from optaware.errors import InputError

    if (other is None) == (phases is None):
        raise InputError.of("design-two", "diff", "two templates are compared", "Give two templates, or --phases.")
    places = (store_at(store).root / "templates", *folder)
    first, second = phases or (None, None)
    text = compare(find_template(one, places, first), find_template(other or one, places, second))
    print(text, end="")
    return 1 if text else 0
