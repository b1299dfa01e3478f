"""Tasks by name."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path

from optaware.errors import InputError
from optaware.tasks._file_task import load_task_file
from optaware.tasks._task import Task
from optaware.tasks.arc_c import ArcCloze, ArcMultipleChoice
from optaware.tasks.boolq import BoolQ
from optaware.tasks.cb import CB
from optaware.tasks.copa import Copa
from optaware.tasks.rte import RTE
from optaware.tasks.sst2 import SST2
from optaware.tasks.super_ni import PREFIX, SuperNaturalInstructions

__all__ = ["get_task", "list_tasks"]

_BUILTIN: dict[str, type[Task]] = {
    task.name: task for task in (ArcCloze, ArcMultipleChoice, BoolQ, CB, Copa, RTE, SST2)
}


def list_tasks() -> list[str]:
    """Names of the built-in tasks."""
    return sorted(_BUILTIN)


def get_task(name_or_path: str) -> Task:
    """A built-in task by its name, or a task of one's own by the path of its YAML file.

    `super_ni/<name>`, or the path of a JSON file, is a task of Super-NaturalInstructions.

    Raises:
        InputError: There is no such task (the nearest names are given), or the file is wrong (all faults at once).
    """
    if name_or_path in _BUILTIN:
        return _BUILTIN[name_or_path]()
    path = Path(name_or_path)
    if name_or_path.startswith(PREFIX) or path.suffix == ".json":
        return SuperNaturalInstructions(name_or_path)
    if path.suffix in (".yaml", ".yml"):
        return load_task_file(path, list_tasks())
    key = name_or_path.strip().lower().replace("_", "-")
    near = get_close_matches(key, list_tasks(), n=3, cutoff=0.5) or [name for name in _BUILTIN if key and key in name]
    meant = f"Did you mean {' or '.join(near)}? " if near else ""
    raise InputError.of(
        "task-unknown",
        f"task {name_or_path!r}",
        "there is no built-in task of this name and it is no path of a .yaml file",
        f"{meant}Tasks: {', '.join(list_tasks())}.",
    )
