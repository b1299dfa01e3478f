"""A whole run: bring the experts, merge them, score the test rows once."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from optaware._io import read_jsonl, write_json, write_jsonl
from optaware.models import peak_memory_bytes
from optaware.records import Prediction, RunResult, RunSpec, Score, StepRecord, short_id
from optaware.store import RunFolder
from optaware.train._types import StepEvent, TrainEvent
from optaware.train.merging import Adapter, check_identity, cosines, read_adapter, write_adapter
from optaware.train.methods.seeded_lora._bench import Bench
from optaware.train.methods.seeded_lora._experts import ExpertStore
from optaware.train.methods.seeded_lora._merge import Merged, merge_experts, validation_score
from optaware.train.methods.seeded_lora._spec import ExpertSpec, Needed, expert_specs, parts

__all__ = ["run", "train_experts"]


def run(
    spec: RunSpec,
    folder: RunFolder,
    *,
    data_dir: Path | None,
    on_event: Callable[[TrainEvent], None],
    should_stop: Callable[[], bool],
) -> RunResult:
    """Train what is missing of the run's experts, merge them and test the merged adapter.

    Experts lie in `<store>/experts`, named by content, and are shared with other runs of the store. Test rows are
    scored after everything was chosen, and nothing is chosen by them.

    Raises:
        StoppedBySignal: It was told to stop; the same command goes on.
        InputError: Data, model or settings cannot be used.
        IntegrityError: The merged adapter is not the sum that it should be.
    """
    work = _Work(spec, folder, data_dir)
    work.bring(on_event, should_stop)
    return work.finish()


def train_experts(
    spec: RunSpec,
    folder: RunFolder,
    *,
    data_dir: Path | None,
    on_event: Callable[[TrainEvent], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> int:
    """Train what is missing of a run's experts and nothing else; several processes may do so at once.

    Returns:
        How many were trained here.
    """
    return _Work(spec, folder, data_dir).bring(on_event, should_stop)


@dataclass
class _Tested:
    """Test predictions and accuracies of one adapter."""

    predictions: dict[str, list[Prediction]] = field(default_factory=dict)
    scores: dict[str, Score] = field(default_factory=dict)

    def mean(self, tasks: Sequence[str]) -> float | None:
        """Mean accuracy over tasks, each weighing the same; None without tasks."""
        return sum(self.scores[task].accuracy for task in tasks) / len(tasks) if tasks else None


class _Work:
    def __init__(self, spec: RunSpec, folder: RunFolder, data_dir: Path | None) -> None:
        self.spec, self.folder, self.data_dir = spec, folder, data_dir
        self.method, self.data = parts(spec)
        self.needed: Needed = expert_specs(spec)
        self.store = ExpertStore(folder.path.parent.parent)

    @cached_property
    def bench(self) -> Bench:
        """The model and the rows; loaded when first needed."""
        return Bench.open(self.spec, self.data, self.method.rank, self.method.alpha, self.data_dir)

    def bring(self, on_event: Callable[[TrainEvent], None], should_stop: Callable[[], bool]) -> int:
        specs = self.needed.in_order()
        total = sum(spec.steps for spec in specs)
        self._progress(specs, total, "experts")

        def on_step(which: ExpertSpec, record: StepRecord) -> None:
            on_event(StepEvent(record, which.steps))
            if record.step == which.steps:
                self._progress(specs, total, "experts", which)

        return self.store.bring(specs, lambda: self.bench, should_stop=should_stop, on_step=on_step)

    def _progress(self, specs: Sequence[ExpertSpec], total: int, part: str, now: ExpertSpec | None = None) -> None:
        done = sum(spec.steps for spec in specs if spec is now or self.store.is_done(spec))
        write_json(self.folder.path / "progress.json", {"done": done, "total": max(1, total), "part": part})

    def finish(self) -> RunResult:
        started = time.perf_counter()
        experts = [self._read(spec) for spec in self._merged_specs()]
        merged = self._merge(experts)
        stored = self._store_merged(merged)
        error = merged.error(experts, stored)
        check_identity(error, self.spec.slug)
        dev = validation_score(self.bench, merged.adapter) if self.data.dev else None
        figures, tested, details = self._test(experts, merged)
        self._write_predictions(self.folder.predictions, tested, self.data.tasks)
        self._write_predictions(self.folder.path / "predictions-held-out.jsonl", tested, self.data.held_out)
        write_json(
            self.folder.path / "merge.json",
            {
                "version": 1,
                "experts": [spec.slug for spec in self._merged_specs()],
                "expert_ids": [short_id(spec) for spec in self._merged_specs()],
                "weights": merged.weights,
                "trace": list(merged.trace),
                "identity_error": error,
                **details,
            },
        )
        self._write_resolved()
        return self._result(tested, dev, {**figures, "identity error": error}, time.perf_counter() - started)

    def _write_predictions(self, path: Path, tested: _Tested, tasks: Sequence[str]) -> None:
        write_jsonl(path, [each.to_json() for task in tasks for each in tested.predictions[task]])

    def _merged_specs(self) -> list[ExpertSpec]:
        alone = self.needed.multitask or (self.needed.seed if not self.needed.experts else None)
        return [alone] if alone is not None else list(self.needed.experts.values())

    def _read(self, spec: ExpertSpec) -> Adapter:
        return self.store.read(spec).to(self.bench.loaded.device)

    def _merge(self, experts: Sequence[Adapter]) -> Merged:
        if len(experts) == 1:
            return Merged(experts[0], (1.0,))
        return merge_experts(self.bench, self.method, experts, self.spec.schedule.batch_size, self.spec.seed)

    def _store_merged(self, merged: Merged) -> Adapter:
        """The merged adapter as it is on disk, in PEFT's layout; with `keep_weights: false`, as it is in memory."""
        if not self.spec.keep_weights:
            return merged.adapter
        path = self.folder.path / "weights"
        if not path.exists():
            write_adapter(merged.adapter, path)
        return read_adapter(path).to(self.bench.loaded.device)

    def _test(
        self, experts: Sequence[Adapter], merged: Merged
    ) -> tuple[dict[str, float | None], _Tested, dict[str, Any]]:
        tasks, held_out = self.data.tasks, self.data.held_out
        tested = self._tested(merged.adapter, (*tasks, *held_out))
        zero_shot = tested.mean(held_out)
        mean = tested.mean(tasks)
        figures: dict[str, float | None] = {"mean task accuracy": mean, "zero-shot accuracy": zero_shot}
        accuracies: dict[str, Any] = {"merged": {task: score.accuracy for task, score in tested.scores.items()}}
        details: dict[str, Any] = {"accuracy": accuracies}
        if self.needed.experts:
            own = {
                task: self.store.accuracy(self.needed.experts[task], self.data, partial(self._own, task, expert))
                for task, expert in zip(tasks, experts, strict=True)
            }
            accuracies["own expert"] = own
            figures["expert accuracy"] = sum(own.values()) / len(own)
            figures["interference"] = sum(own[task] - tested.scores[task].accuracy for task in tasks) / len(tasks)
            details["cosines"] = table = cosines(experts)
            pairs = [table[i][j] for i in range(len(table)) for j in range(i)]
            figures["expert cosine"] = sum(pairs) / len(pairs)
        if self.needed.ineffective:
            noisy = [self._read(spec) for spec in self.needed.ineffective.values()]
            other = self._merge([*experts, *noisy])
            with_noise = self._tested(other.adapter, tasks)
            accuracies["merged with ineffective experts"] = {
                task: score.accuracy for task, score in with_noise.scores.items()
            }
            details["weights with ineffective experts"] = other.weights
            figures["robustness"] = with_noise.mean(tasks)
            figures["ineffective drop"] = (mean or 0.0) - (with_noise.mean(tasks) or 0.0)
        return figures, tested, details

    def _own(self, task: str, expert: Adapter) -> float:
        return self.bench.predict(task, "test", expert)[1].accuracy

    def _tested(self, adapter: Adapter, tasks: Sequence[str]) -> _Tested:
        tested = _Tested()
        for task in tasks:
            tested.predictions[task], tested.scores[task] = self.bench.predict(task, "test", adapter)
        return tested

    def _write_resolved(self) -> None:
        loaded, rows = self.bench.loaded, self.bench.rows
        splits = rows.splits
        write_json(
            self.folder.resolved,
            {
                "model_source": loaded.source,
                "model_sha256": loaded.sha256,
                "device": str(loaded.device),
                "data_source": rows.source().to_json(),
                "rows": {
                    task: {
                        "train": len(each.train),
                        "dev": len(each.dev) if self.data.dev else 0,
                        "test": len(each.test),
                    }
                    for task, each in splits.items()
                },
                "majority_share": {task: each.majority_share("test") for task, each in splits.items()},
                "prompts_at_max_length": rows.at_limit(),
                "overlap": {task: each.overlap for task, each in splits.items() if any(each.overlap.values())},
                "notes": sorted({note for each in splits.values() for note in each.notes}),
            },
        )

    def _result(
        self, tested: _Tested, dev: Score | None, figures: dict[str, float | None], seconds: float
    ) -> RunResult:
        specs = self.needed.in_order()
        costs = [self.store.result(spec) for spec in specs]
        scores = [tested.scores[task] for task in self.data.tasks]
        losses = [score.loss for score in scores if score.loss is not None]
        test = Score(
            accuracy=sum(score.accuracy for score in scores) / len(scores),
            loss=math.fsum(losses) / len(losses) if len(losses) == len(scores) else None,
            n=sum(score.n for score in scores),
        )
        steps = sum(int(cost["steps"]) for cost in costs)
        unusable = [name for name, score in (("test", test), ("dev", dev)) if score is not None and score.loss is None]
        said = f"; no finite loss on the {' and '.join(unusable)} rows" if unusable else ""
        return RunResult(
            run_id=self.folder.run_id,
            outcome="diverged" if unusable else "done",
            test=test,
            dev=dev,
            best_step=steps,
            steps=steps,
            forwards=sum(int(cost["forwards"]) for cost in costs),
            skipped=sum(int(cost["skipped"]) for cost in costs),
            train_s=math.fsum(cost["train_s"] for cost in costs),
            eval_s=seconds,
            step_s_median=self._step_time(specs),
            peak_memory_bytes=peak_memory_bytes(self.bench.model),
            model_source=self.bench.loaded.source,
            model_sha256=self.bench.loaded.sha256,
            data_source=self.bench.rows.source(),
            metrics=figures,
            detail=f"test accuracy is the mean over the mixture's tasks{said}",
        )

    def _step_time(self, specs: Sequence[ExpertSpec]) -> float | None:
        logs = [self.store.folder(spec) / "steps.jsonl" for spec in specs]
        times = [row["step_s"] for log in logs if log.exists() for row in read_jsonl(log)]
        return statistics.median(times) if times else None
