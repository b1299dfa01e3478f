"""A model's name → where its files are: local folder, hub, or packaged asset."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from optaware._io import canonical_json, file_sha256, text_sha256
from optaware.assets import list_assets, pull, weights_sha256
from optaware.errors import InputError, Problem
from optaware.models._hub import ask_for, cached_snapshot, snapshot
from optaware.records import ModelRef

__all__ = ["Place", "check_hub", "is_to_be_fetched", "list_model_names", "resolve"]

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Place:
    """Where a model's files are.

    Attributes:
        folder: The folder that holds them.
        source: Where they came from, for records: `path:…`, `hub:…@commit` or `package:…==version`.
        sha256: Checksum of the weights; None when the folder has none.
    """

    folder: Path
    source: str
    sha256: str | None


def list_model_names() -> list[str]:
    """Names of the packaged models that `load_model` can load."""
    return [asset.name for asset in list_assets() if asset.causal_lm]


def resolve(ref: ModelRef) -> Place:
    """Find the files of `ref`; a packaged model is pulled when it is not there yet.

    Raises:
        InputError: No such folder, a hub name that cannot be had, or a name of neither form nor of a packaged model.
    """
    name = ref.name
    folder = Path(name).expanduser()
    if folder.is_dir():
        _no_revision(ref, "a local folder has none")
        return Place(folder, f"path:{folder.resolve()}", _folder_sha256(folder))
    if folder.is_file():
        raise _unknown(ref, "it is a file; a model is a folder in Hugging Face layout")
    if name.startswith(("/", "./", "../", "~")):
        raise _unknown(ref, "there is no such folder")
    assets = {asset.name: asset for asset in list_assets()}
    if name in assets:
        if not assets[name].causal_lm:
            raise _unknown(ref, f"this asset is no causal language model ({assets[name].title})")
        _no_revision(ref, "a packaged model has none")
        folder = pull(name)
        return Place(folder, assets[name].source, weights_sha256(name))
    if _HUB_NAME.fullmatch(name):
        return _on_hub(ref)
    raise _unknown(ref, "it is no folder, no hub name (`organisation/model`) and no packaged model")


def is_to_be_fetched(ref: ModelRef) -> bool:
    """Whether `ref` is a hub model that does not lie whole in the local cache. Asks nobody."""
    if Path(ref.name).expanduser().exists() or ref.name in {asset.name for asset in list_assets()}:
        return False
    return _HUB_NAME.fullmatch(ref.name) is not None and cached_snapshot(ref.name, ref.revision) is None


def check_hub(ref: ModelRef) -> None:
    """See that the hub gives a model that is to be fetched; downloads one small file and keeps nothing.

    Raises:
        InputError: It does not, or cannot be reached.
    """
    try:
        ask_for(ref.name, ref.revision)
    except (OSError, ValueError) as error:
        raise _not_given(ref, error) from error


def _on_hub(ref: ModelRef) -> Place:
    try:
        folder = snapshot(ref.name, ref.revision)
    except (OSError, ValueError) as error:
        raise _not_given(ref, error) from error
    return Place(folder, f"hub:{ref.name}@{folder.name}", _folder_sha256(folder))


def _not_given(ref: ModelRef, error: Exception) -> InputError:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    at = f" at revision {ref.revision!r}" if ref.revision else ""
    return _unknown(ref, f"there is no such folder, and the hub has it not{at} or cannot be reached ({lines[0][:300]})")


def _folder_sha256(folder: Path) -> str | None:
    """Checksum of the weights: of the one file, or of the list of checksums when they are sharded."""
    hashes = {path.name: file_sha256(path) for path in sorted(folder.glob("*.safetensors"))}
    if len(hashes) == 1:
        return next(iter(hashes.values()))
    return text_sha256(canonical_json(hashes)) if hashes else None


def _no_revision(ref: ModelRef, why: str) -> None:
    if ref.revision is not None:
        raise InputError(
            Problem(
                "revision-without-hub", f"revision {ref.revision!r} of {ref.name!r}", why, "Leave the revision out."
            )
        )


def _unknown(ref: ModelRef, why: str) -> InputError:
    return InputError(Problem("model-unknown", repr(ref.name), why, _near_names(ref.name)))


def _near_names(name: str) -> str:
    """Advice: the packaged models whose names are nearest to the last part of `name`."""
    names = list_model_names()
    near = difflib.get_close_matches(name.rstrip("/").rsplit("/", 1)[-1].lower(), names, n=2, cutoff=0.5)
    return f"Give a folder, a hub name, or a packaged model: {', '.join(near or names)}."
