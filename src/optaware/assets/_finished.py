"""The mark of a finished asset: `asset.json`, written last, and what is checked before a folder is trusted."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from optaware._io import file_sha256, read_json, write_json
from optaware.assets._manifest import AssetSpec
from optaware.errors import AssetError, InputError, Problem

__all__ = ["MARK", "finished_folder", "mark_finished", "own_folder", "read_mark"]

MARK = "asset.json"


def mark_finished(spec: AssetSpec, folder: Path) -> None:
    """Sync the files of `folder` and write its mark: what it was made from, by what, and the checksum of each file."""
    files = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        path.chmod(0o644)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        files[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    mark = {
        "name": spec.name,
        "fingerprint": spec.fingerprint,
        "source": spec.source,
        "payload_sha256": spec.sha256,
        "licence": spec.licence,
        "made_with": {name: _version(name) for name in ("optaware", "transformers", "gguf", "pyarrow")},
        "files": files,
    }
    write_json(folder / MARK, mark)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def read_mark(folder: Path) -> dict[str, Any] | None:
    """The mark of `folder`; None when it has none that can be read."""
    try:
        mark = read_json(folder / MARK)
    except (InputError, OSError):
        return None
    files = mark.get("files") if isinstance(mark, dict) else None
    if not isinstance(files, dict) or not all(isinstance(facts, dict) for facts in files.values()):
        return None
    return dict(mark)


def finished_folder(spec: AssetSpec, root: Path) -> Path | None:
    """The folder of `spec` below `root` when it is finished, made from this very entry, and no file lacks or shrank.

    Sizes are compared, not checksums, so that asking costs nothing; `asset.json` has the checksums.
    """
    folder = root / spec.name
    mark = read_mark(folder)
    if mark is None or mark.get("fingerprint") != spec.fingerprint:
        return None
    for name, facts in mark["files"].items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != facts.get("bytes"):
            return None
    return folder


def own_folder(folder: Path) -> None:
    """Make sure that `folder` is free or an asset's folder, which may be made again.

    Raises:
        AssetError: Something else lies there.
    """
    if folder.exists() and not (folder.is_dir() and (folder / MARK).is_file()):
        raise AssetError(
            Problem(
                "folder-in-the-way",
                str(folder),
                f"it is in the place of the asset but has no {MARK}, so optaware did not make it",
                "Move it away, or set OPTAWARE_CACHE to another folder.",
            )
        )
