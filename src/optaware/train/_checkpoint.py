"""Checkpoints of a run: safetensors files and a state that names them.

`checkpoint-last` is what a resumed run goes on from, `checkpoint-best` the weights with the lowest dev loss. The
state is written last and whole, and files that it does not name are left-overs: a kill at any point leaves the old
checkpoint or the new one.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from optaware._io import make_folder, read_json, storage_errors, sync_folder, write_json
from optaware.errors import InputError, IntegrityError, Problem
from optaware.train._tensor_errors import tensor_errors

__all__ = ["Checkpoint", "discard_checkpoints"]

LAST, BEST = "checkpoint-last", "checkpoint-best"


class Checkpoint:
    """One checkpoint folder.

    Args:
        folder: Its path.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, step: int, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any]) -> None:
        """Write groups of tensors (one file each) and then the state.

        Args:
            step: Names the files.
            tensors: By group, then by name.
            state: Plain JSON values.
        """
        names = {}
        with tensor_errors(self.folder):
            make_folder(self.folder)
            for group, items in tensors.items():
                names[group] = f"{group}-{step:08d}.safetensors"
                _save(items, self.folder / names[group])
            sync_folder(self.folder)  # the state must not reach the disk before what it names
        self._name(step, names, state)

    def _name(self, step: int, names: dict[str, str], state: dict[str, Any]) -> None:
        sizes = {name: (self.folder / name).stat().st_size for name in names.values()}
        write_json(self.folder / "state.json", {"version": 1, "step": step, "files": names, "bytes": sizes, **state})
        for path in self.folder.iterdir():
            if path.name not in sizes and path.name != "state.json":
                path.unlink()

    def take(self, other: Checkpoint, group: str, state: dict[str, Any]) -> None:
        """Hold one group of another checkpoint's tensors too, by a hard link where the file system has them."""
        step, name = int(other.state()["step"]), other.state()["files"][group]
        target = self.folder / name
        with storage_errors(target):
            make_folder(self.folder)
            target.unlink(missing_ok=True)
            try:
                os.link(other.folder / name, target)
            except OSError:
                shutil.copyfile(other.folder / name, target)
                with target.open("rb") as file:
                    os.fsync(file.fileno())
            sync_folder(self.folder)
        self._name(step, {group: name}, state)

    def exists(self) -> bool:
        """Whether a checkpoint was finished here."""
        return (self.folder / "state.json").is_file()

    def state(self) -> dict[str, Any]:
        """The state as it was saved, with `step` and the names of the files.

        Raises:
            IntegrityError: It cannot be read.
        """
        try:
            state = read_json(self.folder / "state.json")
        except InputError as error:
            raise self.damaged("its state.json is not valid JSON") from error
        if not isinstance(state, dict) or state.get("version") != 1:
            raise self.damaged("its state.json is of an unknown version")
        return state

    def load(self, group: str) -> dict[str, Tensor]:
        """One group of tensors, on the CPU.

        Raises:
            IntegrityError: The file is missing, cut short or damaged.
        """
        path = self._path(group)
        try:
            return load_file(path)
        except SafetensorError as error:
            raise self.damaged(f"{path.name} is not a readable safetensors file") from error

    def check(self, group: str) -> None:
        """See that a group is there and whole, without reading its tensors.

        Raises:
            IntegrityError: As `load`.
        """
        path = self._path(group)
        try:
            with safe_open(path, "pt"):
                pass
        except SafetensorError as error:
            raise self.damaged(f"{path.name} is not a readable safetensors file") from error

    def _path(self, group: str) -> Path:
        state = self.state()
        try:
            name = str(state["files"][group])
            size = int(state["bytes"][name])
        except (KeyError, TypeError, ValueError) as error:
            raise self.damaged(f"its state.json does not name the {group}") from error
        path = self.folder / name
        if not path.is_file() or path.stat().st_size != size:
            raise self.damaged(f"{name} is missing or has lost bytes")
        return path

    def damaged(self, why: str) -> IntegrityError:
        """The error for a checkpoint from which nothing can go on."""
        advice = "Delete the run's folder and run it again."
        return IntegrityError(Problem("checkpoint-damaged", self.folder.name, why, advice, str(self.folder)))


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    temporary = path.with_name(f".tmp-{path.name}")
    # Parts of larger tensors go to the host one by one: copies of all of them at once would take the device's memory.
    whole = {name: each if each.is_contiguous() else each.cpu().contiguous() for name, each in tensors.items()}
    save_file(whole, temporary)
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def discard_checkpoints(folder: Path) -> None:
    """Remove a run's checkpoints. For runs that are done: without them an unfinished run begins anew."""
    for name in (LAST, BEST):
        path = folder / name
        if path.is_dir():
            with storage_errors(path):
                (path / "state.json").unlink(missing_ok=True)
                shutil.rmtree(path)
