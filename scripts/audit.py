"""Ask public services whether a locked version has a known vulnerability, and say plainly when they cannot be asked.

    make audit                       # pip-audit (extra `supply`) over requirements/*.lock

Exit codes: 0 nothing known, or no service could be reached (which is printed; with --strict it is 3); 1 something is
known; 2 pip-audit is not installed. pip-audit itself ends with 0 also when the service knows none of the packages, as
behind an index that has no vulnerability data: here only packages that were really looked up count as audited.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SERVICES = ("osv", "pypi")


def ask(lock: Path, service: str) -> dict[str, Any] | None:
    """pip-audit's findings on one lock file; None when the service gave no answer."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "findings.json")
        command = [
            sys.executable,
            "-m",
            "pip_audit",
            "--disable-pip",
            "--require-hashes",
            "-r",
            str(lock),
            "-s",
            service,
        ]
        command += ["-f", "json", "-o", str(out), "--progress-spinner", "off", "--timeout", "20"]
        subprocess.run(command, capture_output=True, check=False)
        return json.loads(out.read_text("utf-8")) if out.exists() and out.stat().st_size else None


def judge(findings: dict[str, Any]) -> tuple[int, list[str]]:
    """How many packages were looked up, and what is known of them."""
    audited, known = 0, []
    for package in findings["dependencies"]:
        if "skip_reason" in package:
            continue
        audited += 1
        for found in package["vulns"]:
            mended = ", ".join(found["fix_versions"]) or "no version yet"
            known.append(f"{package['name']} {package['version']}: {found['id']} (mended in {mended})")
    return audited, known


def main(arguments: list[str] | None = None) -> int:
    """Audit the lock files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strict", action="store_true", help="end with 3 when no service could be asked")
    parser.add_argument("locks", nargs="*", type=Path, default=sorted((ROOT / "requirements").glob("*.lock")))
    asked = parser.parse_args(arguments)
    if subprocess.run([sys.executable, "-c", "import pip_audit"], capture_output=True, check=False).returncode:
        print("pip-audit is not installed here: pip install pip-audit")
        return 2
    worst, found = 0, False
    for lock in asked.locks:
        for service in SERVICES:
            findings = ask(lock, service)
            audited, known = judge(findings) if findings else (0, [])
            if audited:
                break
        else:
            print(f"{lock.name}: NOT AUDITED, because neither {' nor '.join(SERVICES)} knew or answered anything")
            worst = max(worst, 3 if asked.strict else 0)
            continue
        print(f"{lock.name}: {audited} packages looked up at {service}, {len(known)} known vulnerabilities")
        print("".join(f"  {line}\n" for line in known), end="")
        found = found or bool(known)
    return 1 if found else worst


if __name__ == "__main__":
    sys.exit(main())
