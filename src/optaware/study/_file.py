from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from optaware._io import read_yaml
from optaware.errors import InputError, Problem
from optaware.records import ChatModelRef, StudySpec, parse_record

__all__ = ["load_study", "override"]


def load_study(path: Path | None, scale: str | None = None) -> StudySpec:
    """Read a study file; None reads the quickstart that comes with the package.

    Args:
        path: The file.
        scale: One of the file's `scales`: its fields replace the file's own, one by one. None: the file's `scale` when
            it names one, else the file as it is.

    Raises:
        InputError: Malformed YAML, an unknown scale, or fields that are wrong (all of them at once).
    """
    if path is None:
        text = resources.files("optaware.study").joinpath("quickstart.yaml").read_text("utf-8")
        return _study(read_yaml(text, name="quickstart.yaml"), scale, "quickstart.yaml")
    return _study(read_yaml(path), scale, str(path))


def _study(data: Any, scale: str | None, where: str) -> StudySpec:
    if not isinstance(data, dict):
        raise InputError(
            Problem("not-a-mapping", where, "a study file is a mapping of fields", "See docs/study_files.md.", where)
        )
    scales = data.pop("scales", None) or {}
    scale = scale or data.get("scale")
    if scale is not None:
        if not isinstance(scales, dict) or not isinstance(scales.get(scale, {}), dict | None) or scale not in scales:
            known = ", ".join(sorted(scales)) if scales else "none"
            raise InputError.of(
                "scale-unknown", str(scale), f"{where} has these scales: {known}", "Choose one of them."
            )
        data = {**data, **(scales[scale] or {}), "scale": scale}
    return parse_record(StudySpec, data, where)


def override(
    study: StudySpec,
    *,
    models: tuple[str, ...] = (),
    llm: str | None = None,
    base_url: str | None = None,
    seeds: tuple[int, ...] = (),
    workers: int | None = None,
) -> StudySpec:
    """The study with what was asked for on the command line put in place of what the file says.

    Args:
        study: The study as read.
        models: Names of models to fine-tune.
        llm: The chat model that rewrites and judges; with `base_url` an endpoint's model, else a local model.
        base_url: An OpenAI-compatible endpoint.
        seeds: Seeds to run.
        workers: Runs at once.
    """
    data = study.to_json()
    if models:
        data["models"] = [{**data["models"][0], "name": name, "revision": None} for name in models]
    if llm or base_url:
        for role in ("rewriter", "judge"):
            current = data[role] or {"model": llm or ""}
            data[role] = {
                **current,
                "model": llm or current["model"],
                "provider": "openai" if base_url else "local",
                "base_url": base_url,
            }
            parse_record(ChatModelRef, data[role], f"--llm/--base-url ({role})")
    if seeds:
        data["seeds"] = list(seeds)
    if workers is not None:
        data["workers"] = workers
    return parse_record(StudySpec, data, "command line")
