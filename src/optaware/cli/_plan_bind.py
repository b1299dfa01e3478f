from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optaware.cli._options import print_json, print_table

if TYPE_CHECKING:
    from optaware.plan import Surface
    from optaware.records import Binding, ChatModelRef, PlanDocument

__all__ = ["bind_file", "check_file"]


def bind_file(
    document: PlanDocument,
    source: str,
    method: str | None,
    manifest: Path | None,
    out: Path | None,
    changes: tuple[str, ...],
    chat: tuple[ChatModelRef, Path] | None,
    json: bool,
) -> int:
    """Bind a plan, write the file, say what is left."""
    from optaware._io import file_sha256
    from optaware.errors import InputError
    from optaware.plan import bind_plan, binding_yaml, read_manifest, surface_of_manifest, surface_of_method

    if (method is None) == (manifest is None):
        given = "neither --method nor --manifest" if method is None else "--method and --manifest"
        raise InputError.of("bind-what", given, "a plan is bound to one of them", "Give exactly one.")
    baseline = _baseline(changes)
    told: dict[str, Any] = {}
    if method is not None:
        surface = surface_of_method(method, baseline)
    else:
        assert manifest is not None
        if baseline:
            raise InputError.of(
                "bind-what", "--set", "a manifest says its own baseline", "Edit `baseline` of its components."
            )
        surface = surface_of_manifest(read_manifest(manifest))
        place = os.path.relpath(manifest, out.parent if out else Path.cwd())
        told = {"manifest": place, "manifest_sha256": file_sha256(manifest)}
    opened = None
    if chat is not None:
        from optaware.llm import open_chat

        opened = open_chat(chat[0], cache=chat[1])
    binding = bind_plan(document.plan, surface, source=source, baseline=baseline, chat=opened, **told)
    if out is not None:
        from optaware.plan import write_binding

        write_binding(out, binding)
    if json:
        print_json(binding.to_json())
    elif out is None:
        sys.stdout.write(binding_yaml(binding))
    else:
        _print(binding, out)
    _say_what_is_left(binding)
    if not binding.fields:
        raise InputError(*_nothing_fits(document, binding, surface, source))
    unfinished = any(entry.status in ("unbound", "partly") for entry in binding.entries)
    return 1 if unfinished or binding.contradictions else 0


def check_file(path: Path, json: bool) -> int:
    """Say whether a binding can be run."""
    from optaware.plan import read_binding

    binding = read_binding(path)
    if json:
        print_json(binding.to_json())
    else:
        _print(binding, path)
    return 1 if any(entry.status in ("unbound", "partly") for entry in binding.entries) else 0


def _baseline(changes: tuple[str, ...]) -> dict[str, Any]:
    from optaware._io import read_yaml
    from optaware.errors import InputError

    baseline = {}
    for change in changes:
        name, sign, value = change.partition("=")
        if not sign or not name:
            raise InputError.of("bad-change", change, "it has not the form field=value", "As in --set eps=1e-4.")
        baseline[name] = read_yaml(value, name=f"--set {name}")
    return baseline


def _print(binding: Binding, path: Path) -> None:
    rows = [
        [
            rank,
            entry.name,
            entry.status,
            "; ".join(", ".join(f"{field}={value}" for field, value in arm.changes.items()) for arm in entry.runs),
            ", ".join(arm.label for arm in entry.arms if arm.is_baseline),
            f"{entry.why.by}: {entry.why.how}" if entry.why else "",
        ]
        for rank, entry in enumerate(binding.entries, start=1)
    ]
    print_table(["rank", "name", "status", "changes", "baseline", "why"], rows)
    arms = sum(len(entry.runs) for entry in binding.entries)
    print(f"{path}: {arms} settings beside the baseline, of {binding.method or binding.manifest}")


def _say_what_is_left(binding: Binding) -> None:
    for entry in binding.entries:
        for lost in entry.unbound:
            what = f"{entry.name}, {lost.label}" if lost.label else entry.name
            near = "; ".join(f"{part.component} ({part.words}): {part.why_not}" for part in lost.nearest)
            print(f"unbound: {what}: {lost.why}. Needed: {lost.needed}", file=sys.stderr)
            if near:
                print(f"         nearest: {near}", file=sys.stderr)
        for failure in entry.failures:
            print(f"failure: {entry.name}: {failure}", file=sys.stderr)
    for fault in binding.contradictions:
        print(f"contradiction: {fault} [binding-contradicts]", file=sys.stderr)


def _nothing_fits(document: PlanDocument, binding: Binding, surface: Surface, source: str) -> list[Any]:
    """Why a plan does not fit: each of its entries, and the method that it would fit."""
    from optaware.errors import Problem
    from optaware.plan import bind_plan, method_names, surface_of_method

    fits = []
    for name in method_names():
        other = bind_plan(document.plan, surface_of_method(name), source=source)
        fits.append((sum(entry.status in ("bound", "partly") for entry in other.entries), name))
    most = max(count for count, _ in fits)
    others = ", ".join(name for count, name in fits if count == most)
    next = (
        f"{most} of its {len(binding.entries)} entries would fit {others}."
        if most
        else "No method of optaware has such components; describe your script in a manifest."
    )
    return [
        Problem("plan-does-not-fit", entry.part, f"{surface.name}: {entry.unbound[0].why}", next, source)
        for entry in binding.entries
    ]
