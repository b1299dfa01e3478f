from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor

from optaware._io import JsonlAppender, finite_or_none, read_jsonl, write_json, write_jsonl
from optaware.errors import IntegrityError, StoppedBySignal
from optaware.models import peak_memory_bytes
from optaware.records import (
    Episodes,
    EvalRecord,
    GradientHarmonization,
    Record,
    RunResult,
    RunSpec,
    Score,
    StepRecord,
    fingerprint,
    parse_record,
)
from optaware.store import RunFolder
from optaware.train._checkpoint import BEST, LAST, Checkpoint
from optaware.train._types import EvalEvent, StepEvent, TrainEvent
from optaware.train.methods.gradient_harmonization._evaluate import EpisodeScores, score_episodes
from optaware.train.methods.gradient_harmonization._network import Params, make_network
from optaware.train.methods.gradient_harmonization._schedule import learning_rate, mixing
from optaware.train.methods.gradient_harmonization._sources import Classes, load_classes
from optaware.train.methods.gradient_harmonization._step import MetaStep
from optaware.train.methods.gradient_harmonization._tasks import TaskBatch, draw_tasks, task_seeds
from optaware.train.methods.gradient_harmonization._update import FIGURES

__all__ = ["DIVERGED_AFTER", "run"]

DIVERGED_AFTER = 50
"""Updates in a row without a finite gradient after which a run counts as diverged."""


class _Progress(Record):
    """What a checkpoint's state holds beside tensors."""

    step: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    sums: dict[str, float] = Field(default_factory=dict)
    """Sums over the updates made, of the figures by name."""
    train_s: float = 0.0
    eval_s: float = 0.0
    evaluations_since_best: int = 0
    best_step: int | None = None
    best: Score | None = None
    ended: Literal["", "done", "diverged"] = ""
    detail: str = ""

    def with_(self, **changes: Any) -> _Progress:
        return self.model_copy(update=changes)


def run(
    spec: RunSpec,
    folder: RunFolder,
    *,
    data_dir: Path | None,
    on_event: Callable[[TrainEvent], None],
    should_stop: Callable[[], bool],
) -> RunResult:
    """Meta-train as `spec` says, then test on episodes of classes never seen; see `MethodRun` for the contract.

    With validation classes, the weights of the evaluation with the highest validation accuracy are tested (the earlier
    of equals), else the last ones. The accuracy of each test episode is in `episodes.jsonl`. `RunResult.metrics` has
    `5-way-1-shot accuracy` and the like, with `… ci95` (half width over episodes), and means of `FIGURES` over updates.
    With `keep_weights` the chosen weights are in `weights/meta.safetensors`.
    """
    with ExitStack() as stack:
        meta = _MetaRun(spec, folder, data_dir, stack)
        meta.on_event, meta.should_stop = on_event, should_stop
        meta.resume()
        meta.go_on()
        return meta.finish()


def _device(name: str) -> torch.device:
    return torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)


class _MetaRun:
    """One call of `run`."""

    on_event: Callable[[TrainEvent], None]
    should_stop: Callable[[], bool]

    def __init__(self, spec: RunSpec, folder: RunFolder, data_dir: Path | None, stack: ExitStack) -> None:
        self.spec, self.folder, self.stack = spec, folder, stack
        self.data, self.method = cast(Episodes, spec.data), cast(GradientHarmonization, spec.method)
        self.schedule = spec.schedule
        self.device = _device(spec.device)
        self.classes: Classes = load_classes(self.data, data_dir)
        shape = self.classes.train.shape
        self.network = make_network(spec.model, shape[-1], shape[2], self.data.ways, self.device)
        self.params: Params = {name: value.to(self.device) for name, value in self.network.init(spec.seed).items()}
        self.images = self.classes.train.to(self.device)
        self.meta_step = MetaStep(
            self.network,
            self.params,
            self.images,
            self.method,
            shots=self.data.shots,
            seed=spec.seed,
            chunk=math.ceil(self.schedule.batch_size / self.schedule.accumulation),
        )
        self.last, self.best = Checkpoint(folder.path / LAST), Checkpoint(folder.path / BEST)
        self.progress = _Progress()
        self._drawn: tuple[int, TaskBatch] | None = None
        self.identity = {"spec": fingerprint(spec), "base": self.classes.source.sha256["images"]}
        self.parameters = sum(value.numel() for value in self.params.values())
        write_json(
            folder.resolved,
            {
                "device": str(self.device),
                "parameters": self.parameters,
                "data_source": self.classes.source.to_json(),
                "split": self.classes.split,
            },
        )

    def resume(self) -> None:
        """Take up the last checkpoint, if there is one, and cut the logs to where it was written."""
        if self.last.exists():
            state = self.last.state()
            if {key: state.get(key) for key in self.identity} != self.identity:
                raise IntegrityError.of(
                    "checkpoint-foreign",
                    LAST,
                    "it was written for another spec or other data",
                    "Delete the run's folder and run it again.",
                    str(self.last.folder),
                )
            self.progress = parse_record(_Progress, state["progress"], str(self.last.folder))
            _copy(self.last.load("weights"), self.params)
            _copy(self.last.load("state"), self.meta_step.adam.state())
            if self.progress.best_step == self.progress.step:  # a kill may have come between the two
                self.best.take(self.last, "weights", {})
        for path in (self.folder.steps, self.folder.evals):
            _cut(path, self.progress.step)
        self.steps_log = self.stack.enter_context(JsonlAppender(self.folder.steps, sync=False))
        self.evals_log = self.stack.enter_context(JsonlAppender(self.folder.evals))

    def go_on(self) -> None:
        """Train to the end, from evaluation to evaluation."""
        steps, every = self.schedule.steps, self.schedule.eval_every
        while not self.progress.ended:
            target = min((self.progress.step // every + 1) * every, steps)
            while self.progress.step < target and self.progress.skipped_in_a_row < DIVERGED_AFTER:
                if self.should_stop():
                    self._save()
                    raise StoppedBySignal.of(
                        "stopped",
                        self.folder.path.name,
                        f"it was told to stop after step {self.progress.step} of {steps}",
                        "Run the same command again to resume.",
                    )
                self._step()
            if self.progress.skipped_in_a_row >= DIVERGED_AFTER:
                detail = f"no finite gradient in {DIVERGED_AFTER} updates in a row, up to step {self.progress.step}"
                self.progress = self.progress.with_(ended="diverged", detail=detail)
                self._save()
            else:
                self._evaluate()

    def _step(self) -> None:
        started = time.perf_counter()
        step, method = self.progress.step + 1, self.method
        lr = learning_rate(method, step, self.schedule.steps)
        share = mixing(method, step, self.schedule.steps, self.spec.seed)
        under_way = self.meta_step(self._tasks(step), lr, share)
        if step < self.schedule.steps:
            self._drawn = (step + 1, self._draw(step + 1))  # while a GPU is at work
        loss, norm, made, *figures = under_way.tolist()
        seconds = time.perf_counter() - started
        named = dict(zip(FIGURES, figures, strict=True))
        before = self.progress
        sums = {name: before.sums.get(name, 0.0) + value for name, value in named.items()} if made else before.sums
        self.progress = before.with_(
            step=step,
            skipped=before.skipped + (not made),
            skipped_in_a_row=0 if made else before.skipped_in_a_row + 1,
            sums=sums,
            train_s=before.train_s + seconds,
        )
        record = StepRecord(
            step=step,
            loss=finite_or_none(loss),
            grad_norm=finite_or_none(norm),
            lr=lr,
            examples=self.schedule.batch_size,
            forwards=self._forwards(step),
            skipped=not made,
            step_s=seconds,
            metrics={**{name: finite_or_none(value) for name, value in named.items()}, "explore share": share},
        )
        self.steps_log.append(record.to_json())
        self.on_event(StepEvent(record, self.schedule.steps))

    def _tasks(self, step: int) -> TaskBatch:
        """The tasks of an update, drawn already or now."""
        if self._drawn is None or self._drawn[0] != step:
            return self._draw(step)
        return self._drawn[1]

    def _draw(self, step: int) -> TaskBatch:
        return draw_tasks(
            task_seeds(self.spec.seed, "task", step, self.schedule.batch_size),
            available=(self.images.shape[0], self.images.shape[1]),
            ways=self.data.ways,
            shots=self.data.shots,
            queries=self.data.queries,
            mix=self.data.mix,
        )

    def _forwards(self, step: int) -> int:
        return round(step * self.method.forwards_per_step)

    def _score(self, images: Tensor, purpose: str, shots: int, episodes: int) -> EpisodeScores:
        return score_episodes(
            self.network,
            self.params,
            images.to(self.device),
            self.data,
            self.method,
            purpose=purpose,
            shots=shots,
            episodes=episodes,
        )

    def _evaluate(self) -> None:
        started = time.perf_counter()
        progress, schedule, data = self.progress, self.schedule, self.data
        record = None
        if data.validation_classes and data.validation_episodes:
            found = self._score(self.classes.validation, "validation", data.shots, data.validation_episodes)
            score = Score(accuracy=found.accuracy, loss=finite_or_none(found.loss), n=len(found.accuracies))
            better = score.loss is not None and (progress.best is None or score.accuracy > progress.best.accuracy)
            wall = time.perf_counter() - started
            progress = progress.with_(
                eval_s=progress.eval_s + wall,
                evaluations_since_best=0 if better else progress.evaluations_since_best + 1,
                best_step=progress.step if better else progress.best_step,
                best=score if better else progress.best,
            )
            record = EvalRecord(
                step=progress.step,
                split="dev",
                loss=score.loss,
                accuracy=score.accuracy,
                n=score.n,
                best=better,
                forwards=self._forwards(progress.step),
                wall_s=wall,
            )
        if progress.step >= schedule.steps:
            progress = progress.with_(ended="done")
        elif schedule.patience is not None and progress.evaluations_since_best >= schedule.patience:
            detail = f"stopped early: no higher validation accuracy in {schedule.patience} evaluations"
            progress = progress.with_(ended="done", detail=detail)
        self.progress = progress
        if record is not None:
            self.evals_log.append(record.to_json())
            self.on_event(EvalEvent(record, schedule.steps))
        self._save()

    def _save(self) -> None:
        tensors = {"weights": dict(self.params), "state": self.meta_step.adam.state()}
        self.last.save(self.progress.step, tensors, {**self.identity, "progress": self.progress.to_json()})
        if self.progress.best_step == self.progress.step:
            self.best.take(self.last, "weights", {})

    def finish(self) -> RunResult:
        """Test the chosen weights and say how it went."""
        started = time.perf_counter()
        progress, data = self.progress, self.data
        chosen = self.last if progress.best_step is None else self.best
        _copy(chosen.load("weights"), self.params)
        if self.spec.keep_weights:
            self._keep()
        metrics: dict[str, float | None] = {}
        tests: dict[int, EpisodeScores] = {}
        rows: list[dict[str, Any]] = []
        for shots in data.test_shots or (data.shots,):
            found = tests[shots] = self._score(self.classes.test, "test", shots, data.test_episodes)
            name = f"{data.ways}-way-{shots}-shot accuracy"
            metrics[name] = found.accuracy
            metrics[f"{name} ci95"] = found.half_width
            rows += [
                {"shots": shots, "episode": index, "accuracy": accuracy, "loss": finite_or_none(loss)}
                for index, (accuracy, loss) in enumerate(zip(found.accuracies, found.losses, strict=True))
            ]
        write_jsonl(self.folder.path / "episodes.jsonl", rows)
        made = progress.step - progress.skipped
        metrics |= {name: finite_or_none(progress.sums[name] / made) if made else None for name in progress.sums}
        main = tests.get(data.shots) or next(iter(tests.values()))
        times = [row["step_s"] for row in read_jsonl(self.folder.steps, torn_tail=True)]
        return RunResult(
            run_id=self.folder.run_id,
            outcome="diverged" if progress.ended == "diverged" else "done",
            test=Score(accuracy=main.accuracy, loss=finite_or_none(main.loss), n=len(main.accuracies)),
            dev=progress.best,
            best_step=progress.step if progress.best_step is None else progress.best_step,
            steps=progress.step,
            forwards=self._forwards(progress.step),
            skipped=progress.skipped,
            train_s=progress.train_s,
            eval_s=progress.eval_s + time.perf_counter() - started,
            step_s_median=statistics.median(times) if times else None,
            peak_memory_bytes=peak_memory_bytes(torch.nn.ParameterList(self.params.values())),
            model_source=f"initialised here: {self.spec.model.name}, {self.parameters} parameters",
            model_sha256=None,
            data_source=self.classes.source,
            metrics=metrics,
            detail=progress.detail,
        )

    def _keep(self) -> None:
        folder = self.folder.path / "weights"
        Checkpoint(folder).save(
            self.progress.best_step or self.progress.step,
            {"meta": dict(self.params)},
            {"network": self.spec.model.name, "ways": self.data.ways},
        )


def _copy(values: Params, into: Params) -> None:
    with torch.no_grad():
        for name, held in into.items():
            held.copy_(values[name])


def _cut(path: Path, step: int) -> None:
    """Leave out the rows of a log after `step`, and a torn last line."""
    if path.exists():
        rows = read_jsonl(path, torn_tail=True)
        write_jsonl(path, [row for row in rows if row["step"] <= step] if step else [])
