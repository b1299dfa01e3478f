"""`python -m optaware`, which is also how a driver starts its workers."""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress

_left: list[int] = []


def _end_at_once() -> None:
    """End a driver's worker without taking the interpreter apart, which takes seconds once torch is loaded and which
    the driver waits for. Not where an exception is on its way out."""
    if _left:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(_left[0])


if __name__ == "__main__":
    # Registered before anything else is imported, so called last: after threads and all other handlers.
    atexit.register(_end_at_once)
    from optaware.cli import main
    from optaware.execute import PARENT_VARIABLE

    try:
        main()
    except SystemExit as leaving:
        if PARENT_VARIABLE in os.environ and isinstance(leaving.code, int):
            _left.append(leaving.code)
        raise
