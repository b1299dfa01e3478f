"""Which layout a results folder has: written when a study begins in it, checked when one goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from optaware import __version__
from optaware._io import read_json, remove_half_files, write_json
from optaware.errors import InputError, StorageError
from optaware.records import FINGERPRINT_VERSION

__all__ = ["STORE_VERSION", "check_version"]

STORE_VERSION = 1
"""Raised when the layout of the folders changes so that older ones cannot be read as they are."""


def check_version(root: Path) -> None:
    """Note the layout of a new results folder; see that an existing one can be used.

    A folder without a note is from before there was one and has this layout. Runs made under another fingerprint
    version stay where they are: they have other ids, so they are neither used nor overwritten.

    Raises:
        StorageError: The folder was made by a later version, or its note cannot be read.
    """
    path = root / "store.json"
    if not path.exists():
        remove_half_files(root)
        now = {"store_version": STORE_VERSION, "fingerprint_version": FINGERPRINT_VERSION, "optaware": __version__}
        write_json(path, now)
        return
    try:
        noted: Any = read_json(path)
        found = int(noted["store_version"])
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise StorageError.of(
            "store-note", str(path), "it does not say which layout the folder has", "Use another --store.", str(path)
        ) from error
    if found > STORE_VERSION:
        raise StorageError.of(
            "store-newer",
            str(root),
            f"optaware {noted.get('optaware', '?')} made it with layout {found}; this one knows up to {STORE_VERSION}",
            "Install that version, or give another folder with --store; nothing was changed.",
            str(path),
        )
