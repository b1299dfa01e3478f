from __future__ import annotations

from pathlib import Path

from optaware._io import file_sha256
from optaware.errors import InputError
from optaware.plan import (
    bind_plan,
    contradictions,
    plan_sha256,
    read_binding_file,
    read_plan,
    surface_of_manifest,
    surface_of_method,
)
from optaware.records import AblationPlan, Binding, Manifest
from optaware.store import Store
from optaware.study._plan_file import PlanRequest

__all__ = ["binding_of"]


def binding_of(request: PlanRequest, store: Store) -> tuple[Binding, Path]:
    """The binding to run, and the folder of the plan's results (where whoever runs it writes it).

    The one that was named is taken; else the one beside the results, which a person may have edited; else the plan is
    bound by rules. Entries that cannot be bound stay in it, with the reason.

    Raises:
        InputError: The plan or binding cannot be read, or nothing of it can be bound.
    """
    spec = request.spec
    if request.binding is not None:
        binding = read_binding_file(request.binding)
        _must_fit(binding, request)
        binding = _looked_through(binding, request)
        folder = store.plan_folder(request.key(binding.plan.sha256), spec.name)
        return _moved(binding, request), folder
    assert request.plan is not None
    plan = read_plan(request.plan).plan
    folder = store.plan_folder(request.key(plan_sha256(plan)), spec.name)
    beside = folder / "binding.yaml"
    if beside.exists():
        binding = read_binding_file(beside)
        _must_fit(binding, request)
        return _looked_through(binding, request), folder
    binding = _bound(plan, request)
    if not any(entry.runs for entry in binding.entries):
        for_what = spec.method or (request.manifest.name if request.manifest else "")
        why = f"no entry of the plan can be bound to {for_what}; it may be about another method"
        faults = "; ".join(f"{entry.name}: {part.why}" for entry in binding.entries for part in entry.unbound)
        raise InputError.of(
            "plan-fits-nothing",
            f"{len(binding.entries)} entries",
            f"{why} ({faults[:1500]})",
            "Check --method, or write a binding by hand.",
            str(request.plan),
        )
    return _moved(binding, request), folder


def _looked_through(binding: Binding, request: PlanRequest) -> Binding:
    """The binding with what does not go together in it now: a person may have mended or broken it since it was made."""
    if request.manifest is not None:
        surface = surface_of_manifest(request.manifest)
    else:
        surface = surface_of_method(str(binding.method), binding.baseline)
    return binding.model_copy(update={"contradictions": contradictions(binding, surface)})


def _bound(plan: AblationPlan, request: PlanRequest) -> Binding:
    source, baseline = str(request.plan), request.spec.baseline
    if request.manifest is not None and request.manifest_path is not None:
        return bind_plan(
            plan,
            surface_of_manifest(request.manifest),
            source=source,
            manifest=str(request.manifest_path),
            manifest_sha256=file_sha256(request.manifest_path),
        )
    surface = surface_of_method(str(request.spec.method), baseline)
    return bind_plan(plan, surface, source=source, baseline=baseline)


def _moved(binding: Binding, request: PlanRequest) -> Binding:
    """The binding as it lies beside the results: its manifest is named by its whole path there."""
    path = request.manifest_path
    return binding if path is None else binding.model_copy(update={"manifest": str(path.resolve())})


def _must_fit(binding: Binding, request: PlanRequest) -> None:
    manifest: Manifest | None = request.manifest
    if manifest is None and binding.method != request.spec.method:
        why = f"it was made for {binding.method or binding.manifest}"
        raise InputError.of(
            "binding-other-method", f"method {request.spec.method}", why, "Bind the plan again for this method."
        )
    if manifest is not None and binding.manifest is None:
        why = f"it was made for the method {binding.method}, not for a script"
        raise InputError.of("binding-other-method", manifest.name, why, "Bind the plan again with --manifest.")
