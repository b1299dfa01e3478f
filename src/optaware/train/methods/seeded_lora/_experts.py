"""The adapters of a store: each is trained once, by whichever run comes first, and shared by content."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from optaware._io import canonical_json, lock, read_json, text_sha256, write_json, write_text
from optaware.errors import Problem, StoppedBySignal
from optaware.records import StepRecord, TaskMixture, short_id
from optaware.train._checkpoint import discard_checkpoints
from optaware.train.merging import Adapter, read_adapter
from optaware.train.methods.seeded_lora._bench import Bench
from optaware.train.methods.seeded_lora._spec import ExpertSpec

__all__ = ["ExpertStore"]

_POLL_S = 0.2


class ExpertStore:
    """Folders `<root>/experts/<id>-<slug>/` with `spec.json`, `steps.jsonl`, `adapter/`, `result.json`, `DONE`.

    Several processes may want the same adapters at once: each takes up one that is neither done nor held by another,
    and waits when there is none. So runs that share experts share their training as well.

    Args:
        root: The store's root.
    """

    def __init__(self, root: Path) -> None:
        self.root = root / "experts"

    def folder(self, spec: ExpertSpec) -> Path:
        """The adapter's folder."""
        return self.root / f"{short_id(spec)}-{spec.slug}"

    def is_done(self, spec: ExpertSpec) -> bool:
        """Whether the adapter is there; its marker is written last."""
        return (self.folder(spec) / "DONE").exists()

    def read(self, spec: ExpertSpec) -> Adapter:
        """The finished adapter."""
        found = read_adapter(self.folder(spec) / "adapter")
        return Adapter(spec.slug, found.layers, found.base, found.base_sha256, found.fan_in_fan_out)

    def result(self, spec: ExpertSpec) -> dict[str, float]:
        """What its training cost: rows, steps, skipped updates, forward passes, seconds."""
        return dict(read_json(self.folder(spec) / "result.json"))

    def accuracy(self, spec: ExpertSpec, data: TaskMixture, score: Callable[[], float]) -> float:
        """The expert's accuracy on its own task's test rows; computed once for all runs that have the same rows."""
        rows = {"train": data.train, "dev": data.dev, "test": data.test}
        key = text_sha256(canonical_json([rows, data.split_seed, data.prompt, spec.max_length]))[:12]
        path = self.folder(spec) / f"test-{key}.json"
        if not path.exists():
            write_json(path, {"accuracy": score(), **rows})
        return float(read_json(path)["accuracy"])

    def bring(
        self,
        specs: Sequence[ExpertSpec],
        bench: Callable[[], Bench],
        *,
        should_stop: Callable[[], bool],
        on_step: Callable[[ExpertSpec, StepRecord], None],
    ) -> int:
        """Make sure that all of them are there.

        Args:
            specs: Each after the one that it starts from.
            bench: Gives the model; not asked when nothing is left to train.
            should_stop: Asked before every step.
            on_step: Told of every step made here.

        Returns:
            How many were trained by this call.

        Raises:
            StoppedBySignal: `should_stop` said so; the adapter in work has a checkpoint.
        """
        by_id = {short_id(spec): spec for spec in specs}
        trained = 0
        while left := [spec for spec in specs if not self.is_done(spec)]:
            before = trained
            for spec in left:
                if spec.parent is not None and not self.is_done(by_id[spec.parent]):
                    continue
                parent = by_id[spec.parent] if spec.parent else None
                trained += self._take(spec, parent, bench, should_stop, on_step)
            if trained == before and not all(map(self.is_done, specs)):
                if should_stop():
                    why = f"it was told to stop while others train {len(left)} adapters"
                    advice = "Run the same command again to resume."
                    raise StoppedBySignal(Problem("stopped", str(self.root), why, advice))
                time.sleep(_POLL_S)
        return trained

    def _take(
        self,
        spec: ExpertSpec,
        parent: ExpertSpec | None,
        bench: Callable[[], Bench],
        should_stop: Callable[[], bool],
        on_step: Callable[[ExpertSpec, StepRecord], None],
    ) -> int:
        """Train one adapter, unless it is done or somebody is at it; returns whether that was done here."""
        folder = self.folder(spec)
        with lock(folder / ".lock", wait=False) as mine:
            if not mine or self.is_done(spec):
                return 0
            write_json(folder / "spec.json", spec.to_json())
            if not (folder / "adapter").exists():
                worker = bench()
                start = self.read(parent) if parent else worker.drawn(spec.seed, spec.init)
                worker.train(spec, start, folder, should_stop=should_stop, on_step=lambda record: on_step(spec, record))
            discard_checkpoints(folder)  # before the marker, after which nobody looks here again
            write_text(folder / "DONE", "")
        return 1
