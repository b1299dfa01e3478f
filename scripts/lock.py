"""Write the lock files: every package that optaware needs, by version and SHA-256 of each of its files.

    make lock        # needs uv (extra `supply`) and a package index; see docs/security.md for how to install from them

`requirements/user.lock` is for using optaware, `requirements/dev.lock` for its tests too. They hold for all platforms
and Python 3.11 or newer. PyTorch is left out, with what only its CUDA builds bring: which build is right depends on the
machine, so it is installed first and by version.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LOCKS = {"user": (), "dev": ("--extra", "dev")}
_WITH_TORCH = re.compile(r"^(?:torch|triton|cuda-[a-z-]+|nvidia-(?!ml-py)[a-z0-9-]+)==")
_HEADER = "# Written by `make lock` from pyproject.toml; do not edit. PyTorch is left out: see docs/security.md.\n"


def without_torch(text: str) -> str:
    """The lock without PyTorch and its CUDA libraries; an entry is a line and the hash lines under it."""
    entries = re.split(r"(?m)^(?=[A-Za-z0-9])", text)
    return "".join(entry for entry in entries if not _WITH_TORCH.match(entry))


def main() -> int:
    """Write both files; the exit code is the compiler's when it fails."""
    for name, more in LOCKS.items():
        command = ["uv", "pip", "compile", "pyproject.toml", *more, "--universal", "--python-version", "3.11"]
        command += ["--generate-hashes", "--no-header", "--no-annotate", "--quiet"]
        done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            return done.returncode
        path = ROOT / "requirements" / f"{name}.lock"
        path.parent.mkdir(exist_ok=True)
        path.write_text(_HEADER + without_torch(done.stdout), "utf-8")
        print(f"{path.relative_to(ROOT)}: {len(re.findall(r'(?m)^[A-Za-z0-9]', path.read_text()))} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
