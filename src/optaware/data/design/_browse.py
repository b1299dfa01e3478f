"""Looking at templates: which there are, what one says, how two differ."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path

from optaware._io import read_json, text_sha256
from optaware.data._fewshot import TEMPLATES
from optaware.data.design._document import Document
from optaware.errors import InputError
from optaware.records import Record, TemplateCard, parse_record

__all__ = ["TemplateInfo", "compare", "find_template", "list_templates", "parse_template"]

BUILT_IN = ("oat", "paraphrase")


class TemplateInfo(Record):
    """One template in a list.

    Attributes:
        name: What `--template` takes: a built-in name or the path of the Jinja file.
        kind: Built-in, finished, or a build that is under way.
        task: The task it was built for; None: any.
        template_id: Content hash.
        shots: Examples in its few-shot module; None when it was not built.
        valid: "18 of 20" of the finished template.
        note: What was not reached.
    """

    name: str
    kind: str
    task: str | None = None
    template_id: str
    shots: int | None = None
    valid: str | None = None
    note: str = ""


def list_templates(folders: Sequence[Path]) -> list[TemplateInfo]:
    """The built-in templates, and the built ones in the folders (each a build, or a folder of builds)."""
    found = [
        TemplateInfo(name=name, kind="built-in", template_id=_id(TEMPLATES / f"{name}.jinja")) for name in BUILT_IN
    ]
    for folder in folders:
        builds = [folder, *sorted(folder.iterdir())] if folder.is_dir() else []
        found += [info for build in builds if (info := _info(build)) is not None]
    return found


def _info(folder: Path) -> TemplateInfo | None:
    card = folder / "card.json"
    if card.is_file() and (folder / "template.jinja").is_file():
        read = parse_record(TemplateCard, read_json(card), str(card))
        path = folder / "template.jinja"
        edited = "" if _id(path) == read.template_id else "edited by hand; "
        return TemplateInfo(
            name=str(path),
            kind="transferred" if read.source else "built",
            task=read.task,
            template_id=_id(path),
            shots=read.shots,
            valid=None if read.final is None else f"{read.final.valid} of {read.final.rows}",
            note=edited + "; ".join(read.unreached),
        )
    phases = sorted(folder.glob("phase-[0-5]/phase.json")) if folder.is_dir() else []
    if not phases or not (folder / "spec.json").is_file():
        return None
    last = phases[-1].with_name("template.jinja")
    task = str(read_json(folder / "spec.json").get("task"))
    return TemplateInfo(
        name=str(last), kind="under way", task=task, template_id=_id(last), note=f"{len(phases)} phases"
    )


def _id(path: Path) -> str:
    return text_sha256(path.read_text("utf-8").replace("\r\n", "\n").removeprefix("\ufeff"))


def find_template(name: str, folders: Sequence[Path] = (), phase: int | None = None) -> Path:
    """The Jinja file that a name means.

    Args:
        name: A built-in name; the path of a Jinja file; the folder of a build; or the name of such a folder, or of the
            task that it was built for, in one of `folders`.
        folders: Folders that hold builds.
        phase: The template that this phase left, instead of the finished one.

    Raises:
        InputError: There is no such template, or several fit.
    """
    if name in BUILT_IN and phase is None:
        return TEMPLATES / f"{name}.jinja"
    path = Path(name)
    if path.is_file():
        return path
    if path.is_dir():
        return _in_build(path, phase)
    builds = [build for folder in folders if folder.is_dir() for build in sorted(folder.iterdir())]
    named = [build for build in builds if build.name == name] or [
        build
        for build in builds
        if (info := _info(build)) is not None and info.task == name and info.kind != "under way"
    ]
    # What was built from a paper goes before what was itself carried over.
    built = [build for build in named if (build / "phase-1").is_dir()] or named
    if len(built) != 1:
        why = (
            f"several fit: {', '.join(map(str, built))}" if built else "there is no built-in or built one of this name"
        )
        raise InputError.of(
            "template-unknown",
            repr(name),
            why,
            "Give a Jinja file or the folder of a build; `optaware data template list` shows them.",
        )
    return _in_build(built[0], phase)


def _in_build(folder: Path, phase: int | None) -> Path:
    path = folder / "template.jinja" if phase is None else folder / f"phase-{phase}" / "template.jinja"
    if phase is None and not path.is_file():
        left = sorted(folder.glob("phase-[0-5]/template.jinja"))
        path = left[-1] if left else path
    if not path.is_file():
        raise InputError.of(
            "template-unknown",
            str(folder),
            f"it holds no template{'' if phase is None else f' of phase {phase}'}",
            "Run the build first, or give another phase.",
        )
    return path


def parse_template(path: Path) -> Document:
    """A template as sections of lines.

    Raises:
        InputError: It has not the form of a built template.
    """
    return Document.parse(path.read_text("utf-8").removeprefix("\ufeff"), str(path))


def compare(one: Path, other: Path) -> str:
    """A unified diff of two templates and of their few-shot modules; empty when they are the same."""
    text = _diff(one, other)
    for path in sorted({p.name for side in (one, other) for p in (side.parent / "fewshot").glob("*.yaml")}):
        if TEMPLATES not in (one.parent, other.parent):
            text += _diff(one.parent / "fewshot" / path, other.parent / "fewshot" / path)
    return text


def _diff(one: Path, other: Path) -> str:
    sides = [path.read_text("utf-8").splitlines() if path.is_file() else [] for path in (one, other)]
    lines = list(difflib.unified_diff(sides[0], sides[1], str(one), str(other), lineterm=""))
    return "\n".join(lines) + "\n" if lines else ""
