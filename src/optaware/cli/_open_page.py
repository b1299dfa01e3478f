from __future__ import annotations

import html
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["opened"]


@contextmanager
def opened(url: str, wanted: bool = True) -> Iterator[None]:
    """Open `url` in the user's browser, by way of a private file, which goes when the block ends.

    The address holds a token, and other users of the machine can read the command lines of processes: so the browser
    is given the name of a file that only its owner can read, and the file sends it on.
    """
    import webbrowser

    if not wanted:
        yield
        return
    handle, name = tempfile.mkstemp(prefix="optaware-review-", suffix=".html")  # mode 0600
    path = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(f'<!doctype html><meta http-equiv="refresh" content="0; url={html.escape(url)}">')
        with suppress(webbrowser.Error):  # no browser on this machine: the address stands in the terminal
            webbrowser.open(path.as_uri())
        yield
    finally:
        path.unlink(missing_ok=True)
