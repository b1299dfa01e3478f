from __future__ import annotations

import os
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from optaware._io import file_sha256, storage_errors
from optaware.errors import InputError, Problem
from optaware.records import DataSource, Episodes
from optaware.train._seeds import derive_seed, generator

__all__ = ["Classes", "load_classes"]

_IMAGES = frozenset([".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff"])
_SIZE = 28
_OMNIGLOT_TRAIN = 1200


@dataclass(frozen=True)
class Classes:
    """Images by class: uint8 [classes, drawings, height, width, channels], for training, validation and test."""

    train: Tensor
    validation: Tensor
    test: Tensor
    source: DataSource
    split: str
    """How the classes were divided, in words."""


def load_classes(data: Episodes, data_dir: Path | None) -> Classes:
    """Read the images and divide their classes.

    The training classes are drawn by `split_seed`; the validation classes are the last ones of that draw, without
    rotations, so no test class decides anything.

    Args:
        data: Source and split.
        data_dir: Where `omniglot/omniglot_28.npz` lies, and what relative paths are also looked up in.

    Raises:
        InputError: Missing or malformed data; too few classes or drawings for the tasks. All faults at once.
    """
    path = _find(data, data_dir)
    images = _read_folder(path) if path.is_dir() else _read_tensor(path)
    source = _source(data, path, images)
    if data.source_sha256 not in (None, source.sha256["images"]):
        raise InputError.of(
            "episodes-changed",
            str(path),
            f"its content hash is {source.sha256['images'][:12]}…, not {str(data.source_sha256)[:12]}…",
            "Remove source_sha256, or bring the data back that the spec was made for.",
        )
    total = len(images)
    train = data.train_classes or (min(_OMNIGLOT_TRAIN, total) if data.source == "omniglot" else max(1, total * 3 // 4))
    _check(data, images, train, str(path))
    order = torch.randperm(total, generator=generator(derive_seed(data.split_seed, "classes")))
    keep = train - data.validation_classes
    own = images[order[:keep]]
    if data.rotations:
        own = torch.cat([torch.rot90(own, turns, (2, 3)) for turns in range(4)])
    split = (
        f"{total} classes in the order of split seed {data.split_seed}: {keep} for training"
        f"{' (times 4 rotations)' if data.rotations else ''}, {train - keep} for validation, {total - train} for test"
    )
    return Classes(own, images[order[keep:train]], images[order[train:]], source, split)


def _find(data: Episodes, data_dir: Path | None) -> Path:
    folder = data_dir or (Path(os.environ["OPTAWARE_DATA_DIR"]) if os.environ.get("OPTAWARE_DATA_DIR") else None)
    name = "omniglot/omniglot_28.npz" if data.source == "omniglot" else data.source
    tried = [*([folder / name] if folder else []), *([] if data.source == "omniglot" else [Path(name)])]
    for path in tried:
        if path.exists():
            return path
    raise InputError.of(
        "episodes-missing",
        f"data.source = {data.source}",
        f"none of {', '.join(map(str, tried))} is there" if tried else "no data folder is given",
        "Give --data-dir (or OPTAWARE_DATA_DIR) with omniglot/omniglot_28.npz, or the path of an image folder or file.",
    )


def _read_tensor(path: Path) -> Tensor:
    """`images` of an .npz (never unpickled) or .safetensors file: [classes, drawings, height, width(, channels)]."""
    try:
        with storage_errors(path):
            if path.suffix == ".safetensors":
                from safetensors import safe_open

                with safe_open(path, "pt") as file:
                    keys = list(file.keys())
                    images: Tensor | None = file.get_tensor("images") if "images" in keys else None
            else:
                with np.load(path, allow_pickle=False) as archive:
                    keys = list(archive.files)
                    images = torch.from_numpy(archive["images"]) if "images" in keys else None
    except Exception as error:
        raise InputError.of(
            "episodes-unreadable",
            str(path),
            f"it is no .npz or .safetensors file with plain numbers: {error}",
            "Save an array `images` [classes, drawings, height, width] with numpy.savez_compressed or safetensors.",
        ) from error
    if images is None:
        raise InputError.of(
            "episodes-unreadable", str(path), f"it has no array `images`, only: {', '.join(keys)}", "Name it images."
        )
    images = images.unsqueeze(-1) if images.ndim == 4 else images
    if images.ndim != 5 or images.shape[-1] not in (1, 3) or images.shape[2] != images.shape[3]:
        raise InputError.of(
            "episodes-shape",
            f"images of shape {list(images.shape)}",
            "[classes, drawings, side, side], or that with 1 or 3 channels at the end, is needed",
            "Reshape the array; classes with different numbers of drawings go into an image folder.",
            str(path),
        )
    if images.dtype == torch.uint8:
        return images
    if not images.is_floating_point() or not bool(torch.isfinite(images).all()) or images.min() < 0 or images.max() > 1:
        raise InputError.of(
            "episodes-range",
            f"images of type {images.dtype}",
            "they are neither bytes 0 to 255 nor finite numbers in 0 to 1",
            "Scale them.",
            str(path),
        )
    return (images * 255).round().to(torch.uint8)


def _read_folder(path: Path) -> Tensor:
    """A folder of class folders (at any depth: each that holds images is a class), grey, resized to 28×28.

    Every class is cut to the size of the smallest, in the order of the file names.
    """
    from PIL import Image

    found: dict[Path, list[Path]] = {}
    for file in sorted(path.rglob("*")):
        if file.suffix.lower() in _IMAGES:
            found.setdefault(file.parent, []).append(file)
    if not found:
        raise InputError.of(
            "episodes-missing", str(path), "there are no images below it", "Put one folder of images per class there."
        )
    count = min(map(len, found.values()))
    problems, rows = [], []
    for files in found.values():
        for file in files[:count]:
            try:
                with Image.open(file) as picture:
                    rows.append(np.asarray(picture.convert("L").resize((_SIZE, _SIZE), Image.Resampling.BOX)))
            except OSError as error:
                problems.append(Problem("episodes-unreadable", str(file), str(error), "Mend or remove it.", str(path)))
    if problems:
        raise InputError(*problems[:50])
    return torch.from_numpy(np.stack(rows)).view(len(found), count, _SIZE, _SIZE, 1)


def _check(data: Episodes, images: Tensor, train: int, where: str) -> None:
    total, drawings = images.shape[:2]
    shots = max(data.shots, *data.test_shots) if data.test_shots else data.shots
    problems = []

    def fault(code: str, given: str, why: str, next: str) -> None:
        problems.append(Problem(code, given, why, next, where))

    if drawings < shots + data.queries:
        why = f"a class has {drawings} drawings, fewer than {shots} shots and {data.queries} queries"
        fault("episodes-drawings", f"{shots} + {data.queries} drawings", why, "Lower shots, test_shots or queries.")
    if train > total:
        fault("episodes-classes", f"train_classes = {train}", f"there are {total} classes", "Lower train_classes.")
    for name, count in (
        ("training", train - data.validation_classes),
        ("validation", data.validation_classes or data.ways),
        ("test", total - train),
    ):
        if count < data.ways:
            why = f"{max(0, count)} {name} classes are left of {total}, fewer than the {data.ways} of a task"
            fault("episodes-classes", f"ways = {data.ways}", why, "Change ways, train_classes or validation_classes.")
    if problems:
        raise InputError(*problems)


def _source(data: Episodes, path: Path, images: Tensor) -> DataSource:
    digest = file_sha256(path) if path.is_file() else sha256(images.numpy().tobytes()).hexdigest()
    return DataSource(
        kind="data-dir" if data.source == "omniglot" else "local", location=str(path), sha256={"images": digest}
    )
