from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from optaware._io import storage_errors

__all__ = ["tensor_errors"]

_NUMBER = re.compile(r"\(os error (\d+)\)")


@contextmanager
def tensor_errors(path: Path) -> Iterator[None]:
    """`storage_errors` for code that writes tensors: safetensors hides the system's error in a text of its own."""
    with storage_errors(path):
        try:
            yield
        except SafetensorError as error:
            found = _NUMBER.search(str(error))
            if found is None:
                raise
            number = int(found.group(1))
            raise OSError(number, os.strerror(number)) from error
