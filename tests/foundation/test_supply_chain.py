"""The lock files hold what pyproject.toml asks for, by hash; the audit says when it could not look."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
WITH_TORCH = {"torch", "triton"}


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def locked(name: str) -> dict[str, tuple[set[str], list[str]]]:
    """Package -> (versions, hashes)."""
    found: dict[str, tuple[set[str], list[str]]] = {}
    for entry in re.split(r"(?m)^(?=[A-Za-z0-9])", (ROOT / "requirements" / f"{name}.lock").read_text("utf-8"))[1:]:
        package, version = re.match(r"([A-Za-z0-9._-]+)==([^\s;]+)", entry).groups()
        versions, hashes = found.setdefault(canonicalize_name(package), (set(), []))
        versions.add(version)
        hashes += re.findall(r"--hash=sha256:([0-9a-f]{64})", entry)
    return found


@pytest.mark.parametrize(("lock", "extras"), [("user", ()), ("dev", ("dev",))])
def test_every_dependency_is_locked_by_version_and_hash(lock, extras):
    asked = [*PROJECT["dependencies"], *(item for extra in extras for item in PROJECT["optional-dependencies"][extra])]
    found = locked(lock)
    assert all(hashes for _, hashes in found.values())
    for requirement in map(Requirement, asked):
        if canonicalize_name(requirement.name) in WITH_TORCH:
            continue
        versions, _ = found[canonicalize_name(requirement.name)]
        assert all(version in requirement.specifier for version in versions), requirement


def test_pytorch_and_its_libraries_are_not_locked():
    assert not [name for name in locked("dev") if re.match(r"torch$|triton$|cuda-|nvidia-(?!ml-py)", name)]


def test_an_entry_of_pytorch_goes_with_all_its_hashes():
    own, torch, other = (f"{name} \\\n    --hash=sha256:00\n" for name in ("abc==1", "torch==2", "torchjd==1"))
    assert load("lock").without_torch(f"# head\n{own}{torch}    # via abc\n{other}") == f"# head\n{own}{other}"


def findings(*packages):
    return {"dependencies": list(packages), "fixes": []}


SKIPPED = {"name": "a", "skip_reason": "Dependency not found on PyPI"}
FINE = {"name": "b", "version": "1", "vulns": []}
BAD = {"name": "c", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"], "aliases": [], "description": ""}]}


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        (None, 0, "NOT AUDITED"),
        (findings(SKIPPED), 0, "NOT AUDITED"),  # what pip-audit itself calls "no known vulnerabilities"
        (findings(SKIPPED, FINE), 0, "1 packages looked up"),
        (findings(SKIPPED, FINE, BAD), 1, "c 2: CVE-1 (mended in 3)"),
    ],
)
def test_what_could_not_be_looked_up_is_not_called_clean(answer, code, said, monkeypatch, capsys, tmp_path):
    audit = load("audit")
    monkeypatch.setattr(audit, "ask", lambda lock, service: answer)
    monkeypatch.setattr(audit.subprocess, "run", lambda *a, **k: type("Done", (), {"returncode": 0}))
    assert audit.main([str(tmp_path / "user.lock")]) == code
    assert said in capsys.readouterr().out
    if "NOT" in said:
        assert audit.main(["--strict", str(tmp_path / "user.lock")]) == 3
