"""One run by several processes, as torchrun starts them: queries are shared, the first process writes the folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optaware.records import RunResult, RunSpec
from optaware.store import RunFolder, Store
from optaware.study._train_one import run_in, train_one, written_result

__all__ = ["train_together"]


def train_together(
    spec: RunSpec,
    store: Store,
    *,
    data_dir: Path | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    on_event: Callable[[Any], None] | None = None,
    until: int | None = None,
) -> RunResult | None:
    """Do a run with all processes that the launcher started; the outcome is that of one process, to the bit.

    Each process loads the whole model and evaluates its share of the points that a step asks for; only losses are
    exchanged. The first process writes the run's folder. The others go through the same steps in a copy of it, which is
    thrown away, so all resume from the same checkpoint. The number of processes may change from start to start.

    Args:
        spec: The run.
        store: Where its folder lies; all processes must see it.
        data_dir: Folder of task data.
        should_stop: Asked at every step; a stop of one process stops all.
        on_event: Receives training events in the first process.
        until: As in `train_one`.

    Returns:
        The result in the first process, None in the others.

    Raises:
        RankError: A process is gone or does not answer; the same command resumes.
        OptawareError: As in `train_one`.
    """
    from optaware.train.distributed import Ranks

    with Ranks.joined() as ranks:
        folder = store.run_folder(spec)
        if ranks.size == 1 or ranks.any(ranks.first and (folder.is_done or written_result(folder) is not None)):
            if not ranks.first:
                return None
            return train_one(spec, store, data_dir=data_dir, should_stop=should_stop, on_event=on_event, until=until)

        def stop() -> bool:
            return ranks.any(should_stop())

        if ranks.first:
            ranks.wait()  # until the others have their copies
            return train_one(spec, store, data_dir=data_dir, should_stop=stop, on_event=on_event, until=until)
        with tempfile.TemporaryDirectory(prefix="optaware-rank-") as scratch:
            own = Path(scratch) / folder.path.name
            if folder.path.is_dir():
                shutil.copytree(folder.path, own, copy_function=_link_or_copy)
            own.mkdir(exist_ok=True)
            ranks.wait()
            run_in(RunFolder(own), spec, store, data_dir, stop, None, until)
    return None


def _link_or_copy(source: str, target: str) -> str:
    """Weights are replaced, never changed, so they can be linked; logs are written to, so they are copied."""
    if source.endswith(".safetensors"):
        try:
            os.link(source, target)
            return target
        except OSError:
            pass
    return str(shutil.copy2(source, target))
