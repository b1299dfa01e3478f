from __future__ import annotations

from pathlib import Path

from optaware._io import dump_yaml, read_yaml, write_text
from optaware.errors import InputError
from optaware.records import Binding, Manifest, parse_record

__all__ = ["binding_yaml", "read_binding_file", "read_manifest", "write_binding"]

_HEADER = """How the entries of an ablation plan map to configuration. Meant to be read and edited.
An entry runs when it is bound (or partly bound): each arm changes the fields under `changes`, all else stays as in
`baseline`. To bind one by hand: give it arms, `status: bound` and `why: {by: person, how: ...}`, and drop `unbound`.
`status: skipped` leaves an entry out. `optaware plan bind --check FILE` says whether the file can be run."""


def binding_yaml(binding: Binding) -> str:
    """A binding as YAML that a person can read and edit; empty fields are left out."""
    return dump_yaml(_lean(binding.model_dump(mode="json")), header=_HEADER)


def write_binding(path: Path, binding: Binding) -> None:
    """Write a binding whole."""
    write_text(path, binding_yaml(binding))


def read_binding_file(path: Path) -> Binding:
    """Read a binding as it stands in its file, without asking whether the method has such fields.

    Raises:
        InputError: Missing or malformed file, or fields that do not fit the format; all at once.
    """
    return parse_record(Binding, _mapping(path, "binding"), str(path))


def read_manifest(path: Path) -> Manifest:
    """Read a manifest.

    Raises:
        InputError: Missing or malformed file, unknown keys, faulty flags or values; all at once.
    """
    return parse_record(Manifest, _mapping(path, "manifest"), str(path))


def _mapping(path: Path, what: str) -> object:
    data = read_yaml(path)
    if not isinstance(data, dict):
        kind = "nothing" if data is None else type(data).__name__
        raise InputError.of("not-a-mapping", kind, f"a {what} is a mapping of fields", "See docs/plans.md.", str(path))
    return data


def _lean(value: object) -> object:
    """Without what is empty and therefore the default; configuration values are kept as they are, None included."""
    if isinstance(value, dict):
        kept = {key: item if key in _VALUES else _lean(item) for key, item in value.items()}
        return {key: item for key, item in kept.items() if not _empty(item)}
    return [_lean(item) for item in value] if isinstance(value, list) else value


_VALUES = ("changes", "baseline")


def _empty(item: object) -> bool:
    return item is None or item is False or item == "" or item == [] or item == {}
