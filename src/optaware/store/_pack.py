"""Carry what is finished from one results folder to another: a machine that is lent for an hour keeps nothing."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, cast

from optaware._io import make_folder, publish_folder, storage_errors, write_bytes
from optaware.errors import InputError, OptawareError
from optaware.records import short_id
from optaware.store._folder import RunFolder
from optaware.store._store import Store
from optaware.store._version import check_version

__all__ = ["Packed", "Unpacked", "pack_store", "unpack_store"]

_KINDS = ("corpora", "runs", "scripts")
_LAST = "DONE"
_STAYS = (".lock", ".tmp-", "checkpoint-")
"""Beginnings of names that mean something on the machine only, or are resumed from."""
_DAMAGED = (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError)


@dataclass(frozen=True)
class Packed:
    """What went into an archive: folders by kind, and the finished folders that did not as they have lost bytes."""

    folders: dict[str, int]
    damaged: tuple[str, ...]
    bytes: int


@dataclass(frozen=True)
class Unpacked:
    """What became of an archive's folders.

    Attributes:
        taken: Put in place, by kind.
        there: Finished here already, and left as they are.
        begun: Begun here but not finished, and left as they are; the command that began them goes on.
        refused: Folder and reason.
    """

    taken: dict[str, int]
    there: tuple[str, ...]
    begun: tuple[str, ...]
    refused: dict[str, str]


def pack_store(store: Store, path: Path) -> Packed:
    """Write the finished runs (their weights too, where they were kept) and corpora of a results folder to one file.

    Runs that a grid has no further use for (`pruned`) go with them, or they would be begun again. Checkpoints,
    unfinished runs, replies of chat models and reports stay: the first three are of no use to what is finished, and the
    study's command makes the reports again within seconds.

    Args:
        store: The results folder.
        path: The archive, `.tar.gz`; it is written whole or not at all.

    Raises:
        InputError: Another ending, or nothing is finished.
        StorageError: It cannot be written.
    """
    if not path.name.endswith(".tar.gz"):
        raise InputError.of("pack-name", str(path), "an archive of results is a .tar.gz file", "Name it so.")
    folders: list[str] = []
    damaged: list[str] = []
    for kind in _KINDS:
        for folder in sorted((store.root / kind).glob(f"*/{_LAST}")):
            name = f"{kind}/{folder.parent.name}"
            (damaged if kind == "runs" and RunFolder(folder.parent).lost() else folders).append(name)
    folders += [f"runs/{run.path.name}" for run in store.runs() if not run.done.exists() and _is_pruned(run)]
    if not folders:
        why = "no run and no corpus in it is finished"
        raise InputError.of("pack-nothing", str(store.root), why, "Give the folder that `optaware run` wrote to.")
    with storage_errors(path), tempfile.TemporaryFile(dir=path.parent) as file:
        with tarfile.open(fileobj=cast("BinaryIO", file), mode="w:gz", compresslevel=6, dereference=True) as archive:
            for name in folders:
                for member in _members(store.root / name):
                    archive.add(member, member.relative_to(store.root).as_posix(), recursive=False, filter=_plain)
        file.seek(0)
        write_bytes(path, iter(lambda: file.read(1 << 20), b""))
    kinds = [name.split("/")[0] for name in folders]
    return Packed({kind: kinds.count(kind) for kind in _KINDS}, tuple(damaged), path.stat().st_size)


def _members(folder: Path) -> Iterator[Path]:
    """A folder's files; the marker that says that it is whole, if it has one, comes last."""
    for path in sorted(folder.rglob("*")):
        steps = path.relative_to(folder).parts
        if path.is_file() and steps != (_LAST,) and not any(step.startswith(_STAYS) for step in steps):
            yield path
    if (folder / _LAST).exists():
        yield folder / _LAST


def _is_pruned(run: RunFolder) -> bool:
    with suppress(OptawareError):
        status = run.read_status()
        return status is not None and status.state == "pruned"
    return False


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """Without the owner: it is another on the next machine, and nobody's business."""
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    info.mode = 0o644
    return info


def unpack_store(path: Path, store: Store) -> Unpacked:
    """Put what an archive of `pack_store` holds into a results folder, where it is not there yet.

    The archive is read to its end first, where its checksum is, so that nothing is taken of one that was cut off or
    changed on its way, or that holds anything else than files of runs and corpora. A folder appears whole or not at
    all.

    Raises:
        InputError: The file is no such archive.
        StorageError: The folder was made by a later version, or cannot be written.
    """
    _check(path)
    check_version(store.root)
    taken = dict.fromkeys(_KINDS, 0)
    there: list[str] = []
    begun: list[str] = []
    refused: dict[str, str] = {}
    with storage_errors(store.root), tempfile.TemporaryDirectory(prefix=".unpack-", dir=store.root) as temporary:
        for name, whole in _extracted(path, Path(temporary)):
            place, found = store.root / name, Path(temporary) / name
            if fault := _fault(found, whole):
                refused[name] = fault
            elif place.is_dir():
                (begun if _fault(place, (place / _LAST).exists()) else there).append(name)
            else:
                make_folder(place.parent)
                publish_folder(found, place)
                taken[name.split("/")[0]] += 1
            shutil.rmtree(found, ignore_errors=True)
    return Unpacked(taken, tuple(there), tuple(begun), refused)


def _check(path: Path) -> None:
    with _archive(path) as archive:
        for info in archive:
            steps = PurePosixPath(info.name).parts
            if len(steps) < 3 or steps[0] not in _KINDS or ".." in steps or "\\" in info.name or not info.isreg():
                raise _no_archive(path, f"it holds {info.name!r}, which is no file of a run or corpus")
        while archive.fileobj and archive.fileobj.read(1 << 20):  # to the checksum, past the end that tar sees
            pass


def _extracted(path: Path, target: Path) -> Iterator[tuple[str, bool]]:
    """Write an archive's folders below `target`, one after the other; each with whether its marker came last."""
    name = ""
    with _archive(path) as archive:
        for info in archive:
            steps = PurePosixPath(info.name).parts
            if (now := "/".join(steps[:2])) != name:
                if name:
                    yield name, False
                name = now
            (target / info.name).parent.mkdir(parents=True, exist_ok=True)
            with cast("BinaryIO", archive.extractfile(info)) as data, (target / info.name).open("wb") as file:
                shutil.copyfileobj(data, file)
            if steps[2:] == (_LAST,):
                yield name, True
                name = ""
        if name:
            yield name, False


@contextmanager
def _archive(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:gz") as archive:
            yield archive
    except _DAMAGED as error:
        raise _no_archive(path, f"it was cut off, changed, or never one ({error})") from error
    except FileNotFoundError as error:
        raise InputError.of(
            "pack-missing", str(path), "there is no such file", "Give the path of the archive."
        ) from error


def _no_archive(path: Path, why: str) -> OptawareError:
    why = f"{why}; nothing of it was taken"
    return InputError.of("pack-damaged", str(path), why, "Make it again with `optaware runs pack`, and copy it whole.")


def _fault(folder: Path, marked: bool) -> str:
    """Why a folder, with or without its marker, is none that can be used, or ""."""
    run = RunFolder(folder) if folder.parent.name == "runs" else None
    if not marked and (run is None or not _is_pruned(run)):
        return f"it has no {_LAST}"
    if run is None:
        return ""
    if marked and (lost := run.lost()):
        return f"{lost} is not as long as it was when the run ended"
    try:
        made = short_id(run.read_spec())
    except OptawareError as error:
        return str(error)
    return "" if made == run.run_id else f"its spec has the id {made}: another version made it, or it was changed"
