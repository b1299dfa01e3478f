from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_root"]


def cache_root() -> Path:
    """Where assets lie once converted: `OPTAWARE_CACHE`, else `$XDG_CACHE_HOME/optaware`, else `~/.cache/optaware`."""
    if chosen := os.environ.get("OPTAWARE_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base).expanduser() if base else Path.home() / ".cache") / "optaware"
