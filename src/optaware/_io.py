"""Files written whole, read strictly, and locked: the only place that touches bytes on disk for records."""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import re
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

import yaml

from optaware.errors import InputError, OptawareError, Problem, ProblemList, StorageError

__all__ = [
    "JsonlAppender",
    "canonical_json",
    "dump_yaml",
    "dumps",
    "file_sha256",
    "finite_or_none",
    "hide_secrets",
    "lock",
    "make_folder",
    "publish_folder",
    "read_json",
    "read_jsonl",
    "read_yaml",
    "remove_half_files",
    "storage_errors",
    "sync_folder",
    "text_sha256",
    "write_bytes",
    "write_json",
    "write_jsonl",
    "write_text",
]


def canonical_json(value: Any) -> str:
    """One text for one value: sorted keys, no spaces, no NaN; the form that is hashed."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def dumps(value: Any) -> str:
    """One line of JSON as records are written (insertion order, UTF-8, no NaN)."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def text_sha256(text: str) -> str:
    """SHA-256 of the UTF-8 bytes of `text`, in hexadecimal."""
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal, read in blocks of 1 MiB."""
    digest = sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` on `path` into a `StorageError` that says what to do."""
    try:
        yield
    except OSError as error:
        if isinstance(error, OptawareError):  # an IntegrityError is an OSError too
            raise
        advice = {
            errno.ENOSPC: "Free some space or choose another folder, then run the same command again; it resumes.",
            errno.EDQUOT: "Free some of the quota, then run the same command again; it resumes.",
            errno.EACCES: "Choose a folder that you may write to.",
            errno.EROFS: "The file system is read-only: choose another folder.",
        }.get(error.errno or 0, "See the reason given by the system.")
        raise StorageError(
            Problem("storage", str(path), error.strerror or type(error).__name__, advice, where=str(path))
        ) from error


_HALF = ".tmp-"


def sync_folder(folder: Path) -> None:
    """Bring to the disk which files a folder holds: without it a power loss may take back a new name."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(folder: Path) -> None:
    """Make a folder and what is missing above it, so that all of them outlast a power loss."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for path in reversed(missing):
        path.mkdir(exist_ok=True)
        sync_folder(path.parent)


def _half_file(path: Path) -> tuple[BinaryIO, Path]:
    """A new file beside `path`, locked for as long as it is open, by which others know that somebody writes it."""
    while True:
        handle, name = tempfile.mkstemp(prefix=_HALF, suffix=f"-{path.name}", dir=path.parent)
        file = os.fdopen(handle, "wb")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            if os.fstat(handle).st_nlink:
                return file, Path(name)
        except BaseException:
            file.close()
            Path(name).unlink(missing_ok=True)
            raise
        file.close()  # taken for a left-over between the two calls: once more


def remove_half_files(folder: Path) -> None:
    """Remove what writers that were killed have left in a folder; files that are being written stay."""
    with storage_errors(folder):
        for path in folder.glob(f"{_HALF}*") if folder.is_dir() else ():
            if path.is_file():
                _remove_half_file(path)


def _remove_half_file(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink(missing_ok=True)
    except BlockingIOError:
        return
    finally:
        os.close(handle)


def publish_folder(temporary: Path, folder: Path) -> None:
    """Give a finished folder its name once all that is in it is on the disk."""
    for path in temporary.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
    for path in (*(each for each in temporary.rglob("*") if each.is_dir()), temporary):
        sync_folder(path)
    temporary.rename(folder)
    sync_folder(folder.parent)


def write_bytes(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Write a file whole: temporary file beside it, fsync, rename, fsync of the folder.

    A reader sees the old file or the new one, never a part; a crash leaves at most a `.tmp-*` file, which
    `remove_half_files` takes away.
    """
    chunks = [data] if isinstance(data, bytes) else data
    with storage_errors(path):
        make_folder(path.parent)
        file, temporary = _half_file(path)
        try:
            with file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
                temporary.chmod(0o644)
                temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text whole (see `write_bytes`)."""
    write_bytes(path, text.encode("utf-8", "surrogatepass"))


def write_json(path: Path, value: Any) -> None:
    """Write one JSON value whole, indented for people."""
    write_text(path, json.dumps(value, ensure_ascii=False, allow_nan=False, indent=2) + "\n")


def write_jsonl(path: Path, rows: Iterable[Any]) -> None:
    """Write rows, one JSON value a line, whole; `rows` is streamed."""
    write_bytes(path, ((dumps(row) + "\n").encode("utf-8", "surrogatepass") for row in rows))


def read_json(path: Path) -> Any:
    """Read one JSON value; raises `InputError` with line and column when it is malformed."""
    try:
        return _loads(path.read_bytes())
    except FileNotFoundError as error:
        raise InputError(Problem("file-missing", str(path), "there is no such file", "Check the path.")) from error
    except (ValueError, RecursionError) as error:
        raise InputError(_malformed(path, error, "JSON")) from error


def _loads(data: bytes) -> Any:
    """Raises `ValueError` or `RecursionError`; NaN and Infinity, which JSON does not have, are refused."""
    return _DECODER.decode(data.decode("utf-8"))


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")


_DECODER = json.JSONDecoder(parse_constant=_no_constant)


def _malformed(path: Path, error: Exception, kind: str, line: int | None = None) -> Problem:
    if isinstance(error, json.JSONDecodeError):
        place = f"{path}:{line or error.lineno}"
        why = f"not valid {kind} ({error.msg}, column {error.colno})"
    else:
        place = f"{path}:{line}" if line else str(path)
        why = f"not valid {kind} ({error})"
        if isinstance(error, UnicodeDecodeError):
            why = "not valid UTF-8"
        elif isinstance(error, RecursionError):
            why = f"not valid {kind} (brackets nested too deep)"
    return Problem("malformed", path.name, why, "Correct the line or write the file again as UTF-8.", where=place)


def read_jsonl(path: Path, *, torn_tail: bool = False) -> list[Any]:
    """Read all rows of a JSONL file; malformed lines are reported together, each with its number.

    Args:
        path: The file.
        torn_tail: Leave out a last line without a newline that does not parse, as a process killed while appending
            leaves it. Only for files that `JsonlAppender` writes.

    Raises:
        InputError: The file is missing, or lines are malformed.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise InputError(Problem("file-missing", str(path), "there is no such file", "Check the path.")) from error
    rows: list[Any] = []
    problems = ProblemList(str(path))
    lines = data.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(_loads(line))
        except (ValueError, RecursionError) as error:
            if torn_tail and number == len(lines):
                break
            problems.problems.append(_malformed(path, error, "JSON", number))
    problems.raise_if_any()
    return rows


class JsonlAppender:
    """Appends rows to a JSONL file so that a kill loses at most the row being written.

    Opening cuts off a torn last line. Each `append` is one `write` of a full line, or none where that fails;
    `sync=True` (the default) also fsyncs, so a row that `append` returned from survives a power loss.
    """

    def __init__(self, path: Path, *, sync: bool = True) -> None:
        self.path = path
        self._sync = sync
        with storage_errors(path):
            make_folder(path.parent)
            new = not path.exists()
            # Unbuffered: what could not be written must not come back from a buffer when the file is closed.
            self._file = path.open("ab", buffering=0)
            if new:
                sync_folder(path.parent)
            self._cut_torn_tail()

    def _cut_torn_tail(self) -> None:
        size = self._file.seek(0, os.SEEK_END)
        if size == 0:
            return
        with self.path.open("rb") as reader:
            end = size
            while end > 0:
                start = max(0, end - (1 << 16))
                reader.seek(start)
                newline = reader.read(end - start).rfind(b"\n")
                if newline >= 0:
                    end = start + newline + 1
                    break
                end = start
        if end != size:
            self._file.truncate(end)
            self._file.seek(0, os.SEEK_END)

    def append(self, row: Any) -> tuple[int, int]:
        """Append one row; returns where in the file it begins and its length, in bytes."""
        line = (dumps(row) + "\n").encode("utf-8", "surrogatepass")
        with storage_errors(self.path):
            start = self._file.tell()
            try:
                self._write(line)
            except OSError:
                with suppress(OSError):  # a part of a row must not stand before the next one
                    self._file.truncate(start)
                raise
            if self._sync:
                os.fsync(self._file.fileno())
        return start, len(line)

    def _write(self, line: bytes) -> None:
        left = memoryview(line)
        while left:
            left = left[self._file.write(left) :]

    def sync(self) -> None:
        """Bring what was appended to the disk now."""
        with storage_errors(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> JsonlAppender:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def lock(path: Path, *, wait: bool = True) -> Iterator[bool]:
    """Hold an exclusive advisory lock (`flock`) on `path`; yields whether it was taken.

    The kernel drops the lock when the process dies, so a kill leaves no stale lock behind.

    Args:
        path: The lock file; it is created and stays.
        wait: Wait for the holder; otherwise yield False at once when another process holds it.
    """
    with storage_errors(path):
        make_folder(path.parent)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(handle)


def is_locked(path: Path) -> bool:
    """Whether a process holds `lock` on `path` at this moment; False where there is no such file."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


class _StrictLoader(yaml.SafeLoader):
    """YAML 1.2-like scalars: `1e-3` is a number, `no` is text; duplicate keys are refused."""


_StrictLoader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern) for tag, pattern in resolvers if tag in ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_StrictLoader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$"), list("-+0123456789")
)
_StrictLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"^[-+]?(?:[0-9][0-9_]*\.[0-9]*(?:[eE][-+]?[0-9]+)?|\.[0-9]+(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+)$"
    ),
    list("-+0123456789."),
)


def _construct_mapping(loader: _StrictLoader, node: yaml.MappingNode, deep: bool = True) -> dict[Any, Any]:
    loader.flatten_mapping(node)
    mapping: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str | int | float | bool | None):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a plain scalar", key_node.start_mark)
        if key in mapping:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", key_node.start_mark)
        mapping[key] = loader.construct_object(value_node, deep=True)
    return mapping


_StrictLoader.add_constructor("tag:yaml.org,2002:map", _construct_mapping)


def read_yaml(source: Path | str, *, name: str | None = None) -> Any:
    """Read one strict YAML document.

    Differs from PyYAML's defaults: `1e-3` is a float; `yes`, `no`, `on`, `off` and dates stay text; a key given
    twice is an error; no tags that build objects.

    Args:
        source: A path, or the text itself.
        name: What to call the text in errors.

    Raises:
        InputError: Missing file or malformed YAML, with line and column.
    """
    place = name or (str(source) if isinstance(source, Path) else "<text>")
    try:
        text = source.read_text("utf-8") if isinstance(source, Path) else source
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader subclass
    except FileNotFoundError as error:
        raise InputError(Problem("file-missing", place, "there is no such file", "Check the path.")) from error
    except UnicodeDecodeError as error:
        raise InputError(Problem("malformed", place, "not valid UTF-8", "Save it as UTF-8.", where=place)) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{place}:{mark.line + 1}:{mark.column + 1}" if mark else place
        why = getattr(error, "problem", None) or str(error) or "not valid YAML"
        raise InputError(
            Problem("malformed", Path(place).name, f"not valid YAML ({why})", "Correct it.", where)
        ) from error


class _StrictDumper(yaml.SafeDumper):
    """Quotes every text that the strict loader, or YAML as others read it, would take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        return super().increase_indent(flow, False)


_StrictDumper.yaml_implicit_resolvers = {
    first: [*_StrictLoader.yaml_implicit_resolvers.get(first, ()), *yaml.SafeDumper.yaml_implicit_resolvers[first]]
    if first in yaml.SafeDumper.yaml_implicit_resolvers
    else list(_StrictLoader.yaml_implicit_resolvers[first])
    for first in {*_StrictLoader.yaml_implicit_resolvers, *yaml.SafeDumper.yaml_implicit_resolvers}
}


def _represent_float(dumper: _StrictDumper, value: float) -> yaml.ScalarNode:
    if not math.isfinite(value):
        raise ValueError(f"{value} cannot be written: JSON and strict YAML have finite numbers only")
    return dumper.represent_scalar("tag:yaml.org,2002:float", repr(value))


_StrictDumper.add_representer(float, _represent_float)


def dump_yaml(value: Any, *, header: str = "") -> str:
    """Write plain JSON values as YAML for people; `read_yaml` gives them back with their types.

    Args:
        value: Dicts with text keys, lists, text, numbers, bools, None. Order is kept.
        header: Lines of comment put in front, without `#`.
    """
    text = yaml.dump(value, Dumper=_StrictDumper, sort_keys=False, allow_unicode=True, width=110, indent=2)
    comment = "".join(f"# {line}".rstrip() + "\n" for line in header.splitlines())
    return comment + text


_KEY_LIKE = re.compile(r"\b(?:sk|pk)-[A-Za-z0-9*._-]{6,}|\bBearer\s+\S+")
_USER_INFO = re.compile(r"(?<=://)[^/\s@]+@")
_SECRET_QUERY = re.compile(r"([?&][^=&\s]*(?:key|token|secret|sig|password)[^=&\s]*=)[^&\s'\"]+", re.I)


def hide_secrets(text: str) -> str:
    """`text` without what looks like an API key, and without user info or keys in addresses."""
    text = _USER_INFO.sub("***@", _KEY_LIKE.sub("[redacted]", text))
    return _SECRET_QUERY.sub(r"\1[redacted]", text)


def finite_or_none(value: float | None) -> float | None:
    """JSON has no NaN: a value that is not finite is written as null."""
    return value if value is not None and math.isfinite(value) else None
