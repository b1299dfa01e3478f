from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from optaware._io import canonical_json, file_sha256, read_yaml, text_sha256
from optaware.errors import InputError
from optaware.records import Binding, Manifest, fingerprint, parse_record
from optaware.records.plan_run import PlanRunSpec

__all__ = ["PlanRequest", "load_plan_request"]


@dataclass(frozen=True)
class PlanRequest:
    """What is to be run: the resolved spec, where its files lie, and the manifest of a script.

    Attributes:
        spec: The spec, scale and options put in.
        plan: Path of the plan; None when only a binding is given.
        binding: Path of a binding to use; None: the one beside the results, else the plan is bound by rules.
        manifest: The script's manifest; None for a method of optaware's own.
        manifest_path: Where it lies.
    """

    spec: PlanRunSpec
    plan: Path | None
    binding: Path | None
    manifest: Manifest | None
    manifest_path: Path | None

    def key(self, plan_sha256: str) -> str:
        """What the results' folder is named by: the plan's content, the spec, the manifest's content."""
        manifest = file_sha256(self.manifest_path) if self.manifest_path else ""
        return text_sha256(canonical_json([plan_sha256, fingerprint(self.spec), manifest]))


def load_plan_request(
    plan: Path | None,
    *,
    study: Path | None = None,
    scale: str | None = None,
    method: str | None = None,
    manifest: Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> PlanRequest:
    """Put together a study file (or the method's own defaults), a scale, and the command line's options.

    Args:
        plan: A plan in any shape, or a binding (YAML with `entries`); None: the study file names it.
        study: Study file of a plan run.
        scale: Which of its `scales` is put in.
        method: Name of a method; its defaults are used when there is no study file.
        manifest: Manifest of a script.
        options: Fields of `PlanRunSpec` by name, dots going down; those that are None are not set.

    Raises:
        InputError: Missing or malformed files, unknown scale, fields that are wrong; all of a file at once.
    """
    base = study.parent if study else Path()
    data = _mapping(study) if study else {}
    given = plan if plan is not None else _path(base, data.get("plan"))
    binding = _path(base, data.get("binding")) if plan is None else None
    if given is not None and _is_binding(given):
        given, binding = None, given
    if given is None and binding is None:
        raise InputError.of("plan-missing", "no plan", "neither a plan nor a binding is named", "Name one.")
    bound = parse_record(Binding, _mapping(binding), str(binding)) if binding else None
    manifest_path = manifest or _path(base, data.get("manifest"))
    if manifest_path is None and bound is not None and bound.manifest is not None and binding is not None:
        manifest_path = binding.parent / bound.manifest
    if manifest_path is not None:
        data = {**data, "manifest": str(manifest_path)}
        data.pop("method", None)
    else:
        name = method or data.get("method") or (bound.method if bound else None)
        if not study and name is not None:
            data = _method_defaults(name)
        data["method"] = name
        if name is None:
            why = "it is not said which method (or which script) the plan is about"
            raise InputError.of("method-missing", str(given or binding), why, "Give --method or --manifest.")
    data = _with_binding(data, bound)
    data.setdefault("name", (given or binding or Path("plan")).stem.replace(" ", "-")[:40] or "plan")
    if scale is not None:
        data = _with_scale(data, scale, str(study or "the method's defaults"))
    for name, value in (options or {}).items():
        if value is not None:
            _put(data, name.split("."), value)
    data |= {"plan": str(given) if given else None, "binding": str(binding) if binding else None}
    spec = parse_record(PlanRunSpec, data, str(study or "command line"))
    script = parse_record(Manifest, _mapping(manifest_path), str(manifest_path)) if manifest_path else None
    return PlanRequest(spec, given, binding, script, manifest_path)


def _mapping(path: Path) -> dict[str, Any]:
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise InputError.of(
            "not-a-mapping", str(path), "it is no mapping of fields", "See docs/plan_runs.md.", str(path)
        )
    return data


def _path(base: Path, name: Any) -> Path | None:
    return base / str(name) if name else None


def _is_binding(path: Path) -> bool:
    if path.suffix not in (".yaml", ".yml") or not path.is_file():
        return False
    data = read_yaml(path)
    return isinstance(data, dict) and "entries" in data


def _method_defaults(name: str) -> dict[str, Any]:
    """The study file that comes with the package for a method: model, rows, schedule, what its arms need."""
    folder = resources.files("optaware.study").joinpath("plans")
    file = folder.joinpath(f"{name}.yaml")
    data = read_yaml(file.read_text("utf-8"), name=f"{name}.yaml") if file.is_file() else {}
    return dict(data) if isinstance(data, dict) else {}


def _with_binding(data: dict[str, Any], bound: Binding | None) -> dict[str, Any]:
    """What a binding says about how to run it stands above the defaults, and below the command line."""
    if bound is None:
        return data
    run = bound.run
    told: dict[str, Any] = {}
    if run.model is not None:
        told["model"] = run.model.to_json()
    if run.schedule is not None:
        told["schedule"] = run.schedule.to_json()
    if run.seeds:
        told["seeds"] = list(run.seeds)
    if len(run.tasks) > 1:
        why = "a plan is run on one task at a time"
        raise InputError.of("tasks-many", ", ".join(run.tasks), why, "Keep one; run it again with --task for others.")
    if run.tasks:
        told["data"] = {**(data.get("data") or {}), "task": run.tasks[0]}
    return {**data, **told}


def _with_scale(data: dict[str, Any], scale: str, where: str) -> dict[str, Any]:
    scales = data.get("scales") or {}
    if scale not in scales:
        known = ", ".join(sorted(scales)) or "none"
        raise InputError.of("scale-unknown", scale, f"{where} has these scales: {known}", "Choose one of them.")
    return _merged(data, scales[scale] or {})


def _merged(data: dict[str, Any], patch: Mapping[str, Any]) -> dict[str, Any]:
    """`data` with `patch` put in; mappings are merged, everything else is replaced."""
    out = dict(data)
    for name, value in patch.items():
        both = isinstance(value, dict) and isinstance(out.get(name), dict)
        out[name] = _merged(out[name], value) if both else value
    return out


def _put(data: dict[str, Any], path: list[str], value: Any) -> None:
    for part in path[:-1]:
        inner = data.get(part)
        data[part] = dict(inner) if isinstance(inner, dict) else {}
        data = data[part]
    data[path[-1]] = value
