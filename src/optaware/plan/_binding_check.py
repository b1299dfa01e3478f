from __future__ import annotations

from pathlib import Path

from optaware._io import file_sha256
from optaware.errors import InputError, ProblemList
from optaware.plan._binding_file import read_binding_file, read_manifest
from optaware.plan._surface import Surface, surface_of_manifest, surface_of_method
from optaware.plan._value_words import is_baseline_word
from optaware.plan._words import normal_text
from optaware.records import Binding

__all__ = ["contradictions", "read_binding", "surface_of_binding"]


def read_binding(path: Path) -> Binding:
    """Read a binding that is to be run: as `read_binding_file`, and everything in it must be possible.

    Raises:
        InputError: All at once: unknown fields, values that the method or manifest refuses, arms that change nothing,
            contradictions, a manifest that changed.
    """
    binding = read_binding_file(path)
    problems = ProblemList(str(path))
    with problems.collecting():
        surface = surface_of_binding(binding, path)
        for fault in contradictions(binding, surface):
            problems.add("binding-contradicts", fault.split(":")[0], fault, "Edit the binding.")
        if binding.manifest_sha256 is not None and binding.manifest is not None:
            manifest = path.parent / binding.manifest
            if file_sha256(manifest) != binding.manifest_sha256:
                why = "the manifest is not the one that the plan was bound to"
                problems.add("manifest-changed", binding.manifest, why, "Bind again, or drop manifest_sha256.")
    problems.raise_if_any()
    return binding.model_copy(update={"contradictions": ()})


def surface_of_binding(binding: Binding, path: Path) -> Surface:
    """The components that a binding is about, with its baseline.

    Raises:
        InputError: Unknown method, missing manifest, or a baseline that is refused.
    """
    if binding.method is not None:
        surface = surface_of_method(binding.method)
        if unknown := surface.unknown(binding.baseline):
            raise InputError.of(
                "component-unknown",
                f"baseline: {', '.join(unknown)}",
                f"{binding.method} has no such field",
                f"Its components: {', '.join(surface.parts)}.",
                str(path),
            )
        return surface_of_method(binding.method, binding.baseline)
    assert binding.manifest is not None
    return surface_of_manifest(read_manifest(path.parent / binding.manifest))


def contradictions(binding: Binding, surface: Surface) -> tuple[str, ...]:
    """What does not go together in a binding, one text each, beginning with the entry that it is about."""
    faults: list[str] = []
    meant: dict[tuple[str, str], tuple[str, object]] = {}
    for entry in binding.entries:
        seen: dict[str, str] = {}
        for arm in entry.runs:
            place = f"{entry.name}, {arm.label}"
            if unknown := surface.unknown(arm.changes):
                faults.append(f"{place}: {surface.name} has no {', '.join(unknown)}")
                continue
            changes, why_not = surface.settle(arm.changes)
            if why_not is not None:
                faults.append(f"{place}: {why_not}")
                continue
            if all(changes[name] == binding.baseline.get(name, surface.baseline_of(name)) for name in changes):
                faults.append(f"{place}: it changes nothing, the baseline is already so")
            key = repr(sorted(changes.items()))
            if key in seen:
                faults.append(f"{place}: the same change as {seen[key]}")
            seen.setdefault(key, arm.label)
            for field, value in changes.items():
                known, other = meant.setdefault((field, normal_text(arm.label)), (entry.name, value))
                if other != value and len(changes) == 1 and not _relative(arm.label):
                    faults.append(f"{place}: {field} is {value!r} here and {other!r} in {known}")
        for arm in entry.arms:
            if arm.is_baseline and arm.label in seen.values():
                faults.append(f"{entry.name}, {arm.label}: it is both the baseline and a change")
            if not arm.is_baseline and is_baseline_word(arm.label):
                faults.append(
                    f"{entry.name}, {arm.label}: the plan calls it the baseline, but the baseline has "
                    + ", ".join(
                        f"{name} = {surface.baseline_of(name)!r}" for name in arm.changes if name in surface.parts
                    )
                )
    return tuple(faults)


def _relative(label: str) -> bool:
    return normal_text(label) in ("removed", "none", "half", "double", "default")
