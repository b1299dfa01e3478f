from __future__ import annotations

import stat
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from optaware.assets._manifest import Part
from optaware.assets._wheel import open_wheel, write_part
from optaware.errors import IntegrityError


def part(data: bytes, **changes: object) -> Part:
    facts = {"member": "toy/data.bin", "file": "data.bin", "bytes": len(data), "sha256": sha256(data).hexdigest()}
    return Part.model_validate({**facts, **changes})


def wheel(path: Path, members: list[tuple[str | zipfile.ZipInfo, bytes]]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


@pytest.mark.parametrize("name", ["../evil.py", "toy/../../evil.py", "/etc/evil", "toy\\..\\evil", "C:/evil"])
def test_a_wheel_with_a_member_outside_is_refused_whole(tmp_path, name: str) -> None:
    path = wheel(tmp_path / "w.whl", [("toy/data.bin", b"good"), (name, b"evil")])
    with pytest.raises(IntegrityError, match="asset-unsafe-wheel"), open_wheel(path):
        pass
    assert [item.name for item in tmp_path.iterdir()] == ["w.whl"]


def test_a_link_is_refused(tmp_path) -> None:
    link = zipfile.ZipInfo("toy/link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    path = wheel(tmp_path / "w.whl", [("toy/data.bin", b"good"), (link, b"/etc/passwd")])
    with pytest.raises(IntegrityError, match="the member is a link"), open_wheel(path):
        pass


def test_no_zip_file_is_refused(tmp_path) -> None:
    (tmp_path / "w.whl").write_bytes(b"<html>sign in</html>")
    with pytest.raises(IntegrityError, match="cannot be read as a zip file"), open_wheel(tmp_path / "w.whl"):
        pass


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"member": "toy/other.bin"}, "0 members"),
        ({"bytes": 3}, "it has 4 bytes, but the manifest says 3"),
        ({"sha256": "0" * 64}, "0" * 64),
    ],
)
def test_a_member_that_is_not_as_stated_is_refused(tmp_path, changes, why: str) -> None:
    path = wheel(tmp_path / "w.whl", [("toy/data.bin", b"good")])
    with open_wheel(path) as archive, pytest.raises(IntegrityError, match=why):
        write_part(archive, part(b"good", **changes), tmp_path / "out.bin", 0)


def test_a_member_given_twice_is_refused(tmp_path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = wheel(tmp_path / "w.whl", [("toy/data.bin", b"good"), ("toy/data.bin", b"evil")])
    with open_wheel(path) as archive, pytest.raises(IntegrityError, match="2 members"):
        write_part(archive, part(b"good"), tmp_path / "out.bin", 0)


def test_a_member_that_lies_about_its_size_writes_no_more_than_stated(tmp_path) -> None:
    path = wheel(tmp_path / "w.whl", [("toy/data.bin", b"x" * 5_000_000)])
    with open_wheel(path) as archive:
        archive.getinfo("toy/data.bin").file_size = 4
        with pytest.raises(IntegrityError):
            write_part(archive, part(b"xxxx"), tmp_path / "out.bin", 0)
    assert (tmp_path / "out.bin").stat().st_size <= 4


def test_damaged_bytes_are_refused(tmp_path) -> None:
    data = bytes(range(256)) * 40
    path = wheel(tmp_path / "w.whl", [("toy/data.bin", data)])
    raw = bytearray(path.read_bytes())
    raw[60] ^= 0xFF
    path.write_bytes(raw)
    with open_wheel(path) as archive, pytest.raises(IntegrityError):
        write_part(archive, part(data), tmp_path / "out.bin", 0)


def test_parts_are_written_in_their_places_in_any_order(tmp_path) -> None:
    path = wheel(tmp_path / "w.whl", [("toy/a", b"first"), ("toy/b", b"second")])
    with open_wheel(path) as archive:
        write_part(archive, part(b"second", member="toy/b"), tmp_path / "out.bin", 5)
        write_part(archive, part(b"first", member="toy/a"), tmp_path / "out.bin", 0)
    assert (tmp_path / "out.bin").read_bytes() == b"firstsecond"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_that_says_itself_how_much_memory_it_takes_is_refused(tmp_path, method: int) -> None:
    """Found by fuzzing: an LZMA header may ask for a dictionary of 4 GiB."""
    path = tmp_path / "toy-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("toy/data.bin", b"x" * 10)
    with open_wheel(path) as archive, pytest.raises(IntegrityError, match="another method than deflate"):
        write_part(archive, part(b"x" * 10), tmp_path / "out", 0)
