"""A local Hugging Face model as a chat model: loaded at the first request, run in large chunks, replies streamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from optaware._io import storage_errors
from optaware.llm._protocol import Session
from optaware.records import ChatModelRef, ModelRef

if TYPE_CHECKING:
    from optaware.models import KeptPrefixes, LoadedModel

__all__ = ["LocalProvider", "shared_models"]

_CHUNK_ROWS = 512
_BATCH_ROWS = 64
_SAMPLE = 1 << 14
_SAMPLES = 64

_shared: ContextVar[dict[str, tuple[LoadedModel, KeptPrefixes]] | None] = ContextVar("optaware_models", default=None)


@contextmanager
def shared_models() -> Iterator[None]:
    """Within the block, local chat models of the same weights and precision are loaded once, whoever opens them.

    For programs that make many corpora or templates in one process. What prompts have in common from one to the next
    (a judge's examples) is not computed again either. The memory is given back at the end of the block.
    """
    token = _shared.set({})
    try:
        yield
    finally:
        _shared.reset(token)


class LocalProvider:
    """Generates with a causal language model on this machine.

    Rows are taken in chunks of several hundred. Within a chunk the prompts' common prefix (instructions and few-shot
    examples) is computed once, so what is held in memory does not grow with the number of rows. The prefixes computed
    last, up to 256 MiB, stay for the chunks that follow.

    Args:
        ref: `model` is a path, hub name or asset name; `concurrency` the rows in a batch, at least 64, because a
            batch takes memory only for what its rows do not share.
        dtype: Precision of the weights.
    """

    def __init__(self, ref: ChatModelRef, *, dtype: str = "bf16") -> None:
        self.ref = ref
        self._model_ref = ModelRef.model_validate({"name": ref.model, "dtype": dtype})
        self._ready: tuple[LoadedModel, KeptPrefixes] | None = None

    @cached_property
    def identity(self) -> str:
        """Name and precision; for a folder, the content of its files instead of its name."""
        folder = Path(self.ref.model)
        name = f"sha256-{folder_id(folder)}" if folder.is_dir() else self.ref.model
        return f"local:{name}:{self._model_ref.dtype}"

    @property
    def concurrency(self) -> int:
        """Rows of a batch."""
        return max(_BATCH_ROWS, self.ref.concurrency)

    @property
    def window(self) -> int:
        """Rows of a chunk."""
        return max(_CHUNK_ROWS, 2 * self.concurrency)

    def open(self) -> Session:
        """Load the model, unless an earlier session has."""
        from optaware.llm._local_session import LocalSession

        if self._ready is None:
            from optaware.models import KeptPrefixes, load_model

            others = _shared.get()
            self._ready = None if others is None else others.get(self.identity)
            if self._ready is None:
                self._ready = (load_model(self._model_ref), KeptPrefixes())
                if others is not None:
                    others[self.identity] = self._ready
        return LocalSession(*self._ready, self.ref, self.concurrency)


def folder_id(folder: Path) -> str:
    """A short content hash of a model folder that does not read gigabytes.

    Small files count whole; of a large file its size and 64 samples of 16 KiB, evenly spaced, the first and last
    included: training on touches all of a weight file, so that it cannot be mistaken for what it was.
    """
    digest = sha256()
    with storage_errors(folder):
        for path in sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith(".")):
            size = path.stat().st_size
            digest.update(f"{path.name}\0{size}\0".encode())
            with path.open("rb") as file:
                if size <= _SAMPLE * _SAMPLES:
                    digest.update(file.read())
                    continue
                for sample in range(_SAMPLES):
                    file.seek((size - _SAMPLE) * sample // (_SAMPLES - 1), os.SEEK_SET)
                    digest.update(file.read(_SAMPLE))
    return digest.hexdigest()[:16]
